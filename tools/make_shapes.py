"""Write the built-in data set of drawn shapes, in the layouts of COCO, ADE20K and ImageNet."""

import argparse
from dataclasses import fields

from deformable_vit.datasets import ShapesSettings, write_shapes
from deformable_vit.engine import UserError, one_line_errors

_HELP = dict(
    seed='another seed draws other pictures',
    train='scenes to train on',
    val='scenes to test on',
    portraits='classification pictures per class',
    size='mean edge of a scene in pixels',
    max_shapes='most shapes in a scene',
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('root', nargs='?', default='data/shapes', help='folder to make')
    for field in fields(ShapesSettings):
        flag = '--' + field.name.replace('_', '-')
        parser.add_argument(flag, type=int, default=field.default, help=_HELP[field.name])
    parser.add_argument('--overwrite', action='store_true', help='replace shapes that were made with other settings')
    return parser.parse_args()


@one_line_errors
def main() -> None:
    args = vars(parse_args())
    root, overwrite = args.pop('root'), args.pop('overwrite')
    try:
        made = write_shapes(root, ShapesSettings(**args), overwrite)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    print(f'{root}: {"written" if made else "is there already, with these settings"}')


if __name__ == '__main__':
    main()
