"""Convert an official classifier, detector or segmentor, or mmdet's detector with PVT, to a checkpoint of this project.

The result is a plain state dict, which loads strictly into the model of the config, and with
torch.load(weights_only=True). A name that ends in .safetensors selects that format, which needs the package
safetensors. Only classifiers need it: backbones, detectors and segmentors load without conversion.
"""

import argparse
import io
from pathlib import Path

import torch

from deformable_vit.apis.command_line import one_line_errors
from deformable_vit.checkpoints import convert_model, read_state_dict, write_atomically
from deformable_vit.errors import UserError


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', help='checkpoint: a file or URL')
    parser.add_argument('dst', type=Path, help='file to write; it must not exist')
    args = parser.parse_args()

    if args.dst.exists():
        raise UserError(f'{args.dst} exists already; choose another path or remove it')
    state_dict = convert_model(read_state_dict(args.src))
    content = to_bytes(state_dict, args.dst.suffix == '.safetensors')
    args.dst.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(args.dst, content)
    print(f'{args.dst}: {len(state_dict)} tensors, {sum(v.numel() for v in state_dict.values()) / 1e6:.2f} M values')


def to_bytes(state_dict: dict[str, torch.Tensor], as_safetensors: bool) -> bytes:
    if not as_safetensors:
        file = io.BytesIO()
        torch.save(state_dict, file)
        return file.getvalue()
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise UserError(".safetensors needs the package: pip install 'deformable-vit[safetensors]'") from error
    # The entry that libraries look for to know which one wrote the tensors.
    return save({name: value.contiguous() for name, value in state_dict.items()}, metadata={'format': 'pt'})


if __name__ == '__main__':
    main()
