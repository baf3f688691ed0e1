"""metafile.yml and README.md of each family list its configs and results."""

from pathlib import Path

import pytest
import yaml
from config_files import CONFIGS, metafile
from results_pages import page
from running import ROOT

FAMILIES = ('baselines', 'dat', 'dpt', 'pvt', 'pvtv2')


def test_index_imports_every_metafile() -> None:
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    assert sorted(index['Import']) == [f'configs/{family}/metafile.yml' for family in FAMILIES]
    assert {p.parent.name for p in (ROOT / 'configs').glob('*/metafile.yml')} == set(FAMILIES)


@pytest.mark.parametrize('family', FAMILIES)
def test_metafile_lists_every_config_once(family: str) -> None:
    content = metafile(family)
    listed = [model['Config'] for model in content['Models']]
    assert sorted(listed) == sorted(str(p.relative_to(ROOT)) for p in CONFIGS if p.parent.name == family)
    collections = {collection['Name'] for collection in content['Collections']}
    for model in content['Models']:
        assert model['Name'] == Path(model['Config']).stem
        assert model['In Collection'] in collections
        for result in model.get('Results', ()):
            assert all(0 < value < 100 for value in result['Metrics'].values())


@pytest.mark.parametrize('family', FAMILIES)
def test_page_is_up_to_date(family: str) -> None:
    directory = ROOT / 'configs' / family
    assert page(directory) == (directory / 'README.md').read_text(), 'run python tools/results_pages.py'


def test_page_shows_the_values_of_the_metafile() -> None:
    (line,) = [
        line for line in page(ROOT / 'configs' / 'dpt').splitlines() if '(mask-rcnn_dpt-s_fpn_ms-3x_coco.py)' in line
    ]
    cells = [cell.strip() for cell in line.strip('|').split('|')]
    assert (cells[1], cells[6], cells[7]) == ('46.06', '44.4', '41.0')  # published: 46.1 M, 44.4 box AP, 41.0 mask AP
    assert cells[3].startswith('[8 x 2](https://')
    assert 'mask_rcnn_dpt_s_fpn_mstrain-poly_3x_coco.py' in cells[3]
    assert (cells[4], cells[5]) == ('2e-4', 'fp32')
    assert cells[8].startswith('[official](https://')
