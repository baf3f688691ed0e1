"""Check that every combination of backbone and head converges: train small models on synthetic images and test them.

An interrupted run resumes where it stopped. Combinations with a result are skipped, unless their config has changed or
--again is given. Writes a table (table.md), the loss curves (curves.png), and per combination a work directory with
log.txt and result.json.
"""

import argparse
import inspect
import signal
import sys
import threading
import time
from concurrent.futures import as_completed
from pathlib import Path

from _convergence_report import (
    BACKBONES,
    Head,
    Result,
    combinations,
    plot,
    read_log,
    read_results,
    table,
    write_result,
)
from _processes import ROOT, run_tool, usable_cores
from _progress import Display
from _training import parallel, train_and_test
from mmengine.config import Config
from mmengine.runner import Runner

from deformable_vit.engine import UserError, one_line_errors

_READING = threading.Lock()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--out',
        default='work_dirs/convergence',
        help='directory for logs, checkpoints and results (default: %(default)s)',
    )
    parser.add_argument('--only', nargs='+', metavar='COMBINATION', help='train these; --list shows the names')
    parser.add_argument('--list', action='store_true', help='list the combinations and exit')
    parser.add_argument('--again', action='store_true', help='train combinations that have a result again')
    parser.add_argument(
        '--jobs',
        type=int,
        default=min(len(usable_cores()), 4),
        help='parallel trainings, each with an equal share of the cores (default here: %(default)s)',
    )
    return parser.parse_args()


def train(head: Head, backbone: str, out: Path, display: Display, threads: int, stop: threading.Event) -> None:
    """Train one combination, or resume it, test it, and write its result.

    Raises:
        UserError: A tool failed, or ``stop`` was set.
    """
    name = head.config(backbone)
    work_dir = out / name
    work_dir.mkdir(parents=True, exist_ok=True)
    (work_dir / 'trained_with.py').write_text(read_config(name).pretty_text)
    # Two checkpoints, because mmengine deletes the oldest before it has written the newest.
    options = ['randomness.seed=0', 'default_hooks.checkpoint.max_keep_ckpts=2']
    if head.minimum is not None:  # only the test after training counts
        options.append('train_cfg.val_interval=1000000')
    seconds_file = work_dir / 'seconds'
    start = time.monotonic() - (float(seconds_file.read_text()) if seconds_file.exists() else 0.0)
    tested, _ = train_and_test(
        f'{head.title}, {BACKBONES[backbone]}',
        f'configs/demo/{name}.py',
        work_dir,
        display,
        train_options=('--resume', '--cfg-options', *options),
        threads=threads,
        stop=stop,
        tick=lambda: seconds_file.write_text(str(time.monotonic() - start)),
    )
    losses, validations = read_log(work_dir)
    metrics = {k: v for k, v in tested.items() if k.startswith(('coco/', 'mIoU', 'aAcc', 'accuracy/'))}
    metrics.setdefault(head.metric, 0.0)  # mmdet reports no metric for a detector without detections
    improved = bool(validations) and metrics[head.metric] > validations[0].get(head.metric, 0.0)
    write_result(Result(backbone, head.name, metrics, improved, float(seconds_file.read_text()), losses), work_dir)


def read_config(name: str) -> Config:
    """Return the keys of a demo config that mmengine's ``Runner`` takes, without the config's own variables."""
    with _READING:  # mmengine reloads pkg_resources for each base of another package, while another thread may use it
        config = Config.fromfile(ROOT / 'configs' / 'demo' / f'{name}.py')
    return Config({key: config[key] for key in inspect.signature(Runner).parameters if key in config})


def set_aside(work_dir: Path, name: str, again: bool) -> None:
    """Rename the work directory of a combination that is to be trained again or whose config has changed."""
    kept = work_dir / 'trained_with.py'
    if kept.exists() and (again or kept.read_text() != read_config(name).pretty_text):
        work_dir.rename(work_dir.with_name(f'{work_dir.name}_until_{time.strftime("%Y%m%d_%H%M%S")}'))


def train_all(chosen: list[tuple[Head, str]], out: Path, jobs: int) -> list[str]:
    """Train combinations in parallel, and update table and curves after each.

    Returns:
        An error message for each combination that fails or does not converge.

    Raises:
        UserError: Ctrl-C was pressed.
    """
    errors: list[str] = []
    threads = max(1, len(usable_cores()) // jobs)
    with Display(total=len(chosen)) as display:

        def train_once(combination: tuple[Head, str], stop: threading.Event) -> None:
            head, backbone = combination
            if not (out / head.config(backbone) / 'result.json').exists():
                train(head, backbone, out, display, threads, stop)

        try:
            with parallel(train_once, chosen, jobs) as futures:
                for future in as_completed(futures):
                    head, backbone = futures[future]
                    if isinstance(error := future.exception(), UserError):
                        errors.append(str(error))  # the others go on
                        continue
                    future.result()
                    display.count()
                    (result,) = [r for h, r in read_results(out) if h == head and r.backbone == backbone]
                    reached = f'{head.metric} {result.metrics[head.metric]:.3g} in {result.seconds / 60:.1f} minutes'
                    display.print(f'{head.title}, {BACKBONES[backbone]}: {reached}')
                    if not result.converges(head):
                        errors.append(f'{head.config(backbone)} does not converge')
                    (out / 'table.md').write_text(table(read_results(out)))
                    plot(read_results(out), out / 'curves.png')
        except KeyboardInterrupt as error:
            raise UserError('stopped; run the same command to resume') from error
    return errors


@one_line_errors
def main() -> None:
    args = parse_args()
    chosen = {head.config(backbone): (head, backbone) for head, backbone in combinations()}
    if args.list:
        print('\n'.join(chosen))
        return
    for name in args.only or ():
        if name not in chosen:
            raise UserError(f'--only: {name} is not a combination; --list shows all names')
    if args.jobs < 1:
        raise UserError(f'--jobs must be at least 1, got {args.jobs}')
    out = Path(args.out).resolve()
    chosen = {name: combination for name, combination in chosen.items() if not args.only or name in args.only}

    # Exit through the `finally` blocks, which stop the trainings.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run_tool('make_shapes.py', 'data/shapes', log=out / 'make_shapes.log')
    for name in chosen:
        set_aside(out / name, name, args.again)
    errors = train_all(list(chosen.values()), out, args.jobs)
    print(table(read_results(out)))
    print(f'table   {out / "table.md"}\ncurves  {out / "curves.png"}')
    if errors:
        raise UserError('; '.join(errors))


if __name__ == '__main__':
    main()
