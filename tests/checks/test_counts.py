"""Counts of classes."""

from concurrent.futures import ThreadPoolExecutor

from deformable_vit.checks.counts import ClassCount, ClassCounts


def test_images_count_once_and_boxes_each_time() -> None:
    counts = ClassCounts(['cat', 'dog'])
    for image, width, height in ((1, 10, 20), (1, 3, 4), (2, 30, 5)):
        counts.add_box('cat', image, width, height)
    assert counts['cat'] == ClassCount(images=2, boxes=3, smallest=(3, 4), largest=(10, 20))
    assert counts['cat'].numbers() == dict(images=2, boxes=3, smallest=[3, 4], largest=[10, 20])
    assert counts.missing() == ['dog']
    assert counts['dog'].numbers() == dict(images=0)


def test_counts_of_several_datasets_and_threads() -> None:
    first, second = ClassCounts(['cat', 'dog']), ClassCounts(['dog', 'cow'])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: first.add_pixels('cat', i % 100, 2), range(2000)))
    second.add_image('dog', 'a.jpg')
    second.add_box('cow', 0, 5, 5)
    first.add(second)
    assert first['cat'] == ClassCount(images=100, pixels=4000)
    assert {name: row.images for name, row in first.items()} == dict(cat=100, dog=1, cow=1)
    assert first['cow'].smallest == first['cow'].largest == (5, 5)
