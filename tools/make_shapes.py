"""Write the built-in dataset of synthetic images, in the layouts of COCO, ADE20K and ImageNet."""

import argparse
from dataclasses import fields

from deformable_vit.apis.command_line import one_line_errors
from deformable_vit.datasets import ShapesSettings, write_shapes
from deformable_vit.errors import UserError

_HELP = dict(
    seed='random seed of the images',
    train='training images for detection and segmentation',
    val='validation images for detection and segmentation',
    objects='single-object images per class for training classification; validation gets a quarter',
    size='mean height and width of an image in pixels',
    max_shapes='maximum number of shapes in an image',
)


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('root', nargs='?', default='data/shapes', help='directory to write')
    for field in fields(ShapesSettings):
        flag = '--' + field.name.replace('_', '-')
        parser.add_argument(flag, type=int, default=field.default, help=_HELP[field.name])
    parser.add_argument('--overwrite', action='store_true', help='replace a dataset with other settings')
    args = vars(parser.parse_args())
    root, overwrite = args.pop('root'), args.pop('overwrite')
    try:
        written = write_shapes(root, ShapesSettings(**args), overwrite)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    print(f'{root}: {"written" if written else "exists already, with these settings"}')


if __name__ == '__main__':
    main()
