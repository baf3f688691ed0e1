"""Convert an official ImageNet classifier to a checkpoint of this project's ImageNet config.

The result is a plain state dict, which loads strictly into the model of the config, and with
torch.load(weights_only=True). A name that ends in .safetensors selects that format, which needs the package
safetensors. Backbones load official checkpoints without conversion.
"""

import argparse
import os
from pathlib import Path

import torch

from deformable_vit.checkpoints import ContentError, convert_classifier, read_state_dict, write_safetensors
from deformable_vit.engine import UserError, one_line_errors


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', help='official checkpoint: a file or URL')
    parser.add_argument('dst', help='file to write; it must not exist')
    args = parser.parse_args()

    dst = Path(args.dst)
    if dst.exists():
        raise UserError(f'{dst} exists already; choose another path or remove it')
    state_dict = convert_classifier(read_state_dict(args.src))
    dst.parent.mkdir(parents=True, exist_ok=True)
    part = dst.with_name(dst.name + '.part')
    if dst.suffix == '.safetensors':
        try:
            write_safetensors(state_dict, part)
        except ContentError as error:
            raise UserError(str(error)) from error
    else:
        torch.save(state_dict, part)
    os.replace(part, dst)
    print(f'{dst}: {len(state_dict)} tensors, {sum(v.numel() for v in state_dict.values()) / 1e6:.2f} M values')


if __name__ == '__main__':
    main()
