"""From images and videos to predictions, whatever else is among the files."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from .cli import UserError, first_line
from .inference import Predictor
from .inputs import Input, UnreadableError, Video
from .predictions import Job, Outputs


def predict(
    predictor: Predictor,
    inputs: Sequence[Input],
    outputs: Outputs,
    batch_size: int = 1,
    report: Callable[[int], None] = lambda done: None,
) -> None:
    """Predict on all inputs; what cannot be read or predicted is noted and left out.

    Args:
        predictor: Of a model.
        inputs: Images and videos.
        outputs: Where the predictions go.
        batch_size: Images per forward; models that need images of one size get smaller batches where sizes differ.
        report: Called with the number of images that are done.
    """
    batch: list[Job] = []

    def flush() -> None:
        _predict_batch(predictor, batch, outputs)
        batch.clear()
        report(outputs.file.count + len(outputs.file.failed))

    for source in inputs:
        if source.is_video:
            flush()  # images are not frames of this video
        for job in _jobs(predictor, source, outputs):
            sizes_differ = batch and batch[0].data['inputs'].shape != job.data['inputs'].shape
            if predictor.needs_equal_sizes and sizes_differ:
                flush()
            batch.append(job)
            if len(batch) == batch_size:
                flush()
        if source.is_video:
            flush()
            outputs.end()
    flush()


def _jobs(predictor: Predictor, source: Input, outputs: Outputs) -> Iterator[Job]:
    """Yield the image, or the frames of the video, as far as they can be read and prepared."""
    frame = None
    try:
        if source.is_video:
            video = Video(source.path)
            outputs.begin(source, video.fps)
            frames: Iterable[tuple[int | None, np.ndarray]] = enumerate(video)
        else:
            frames = [(None, predictor.read(source.path))]
        for frame, image in frames:
            yield Job(source, frame, image, predictor.prepare(image))
    except UnreadableError as error:
        outputs.fail(source.where(), str(error))
    except Exception as error:  # what transforms raise for a size that they cannot handle
        outputs.fail(source.where(), first_line(error), error)


def _predict_batch(predictor: Predictor, batch: Sequence[Job], outputs: Outputs) -> None:
    """Predict on a batch; if that fails, on one image after the other."""
    if not batch:
        return
    try:
        samples = predictor.predict([job.data for job in batch])
    except UserError:
        raise
    except Exception as error:
        if len(batch) > 1:
            for job in batch:
                _predict_batch(predictor, [job], outputs)
        else:
            outputs.fail(batch[0].where(), first_line(error), error)
        return
    for job, sample in zip(batch, samples, strict=True):
        try:
            outputs.write(predictor, job, sample)
        except UserError:
            raise
        except Exception as error:
            outputs.fail(job.where(), first_line(error), error)
