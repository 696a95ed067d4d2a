"""Whatever is typed ends in a result, or in one line and exit code 2; never in a traceback."""

import contextlib
import io
import os
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.datasets.conftest import save_picture
from tests.torture import LONG
from vlmlab.cli import main
from vlmlab.datasets.catalog import DATASETS
from vlmlab.errors import VlmlabError
from vlmlab.registry import load_system, registry

EXAMPLES = 1000 if LONG else 25
FAST = ["zero_shot", "coop", "tip_adapter", "clip_adapter", "cocoop", "calip", "linear_probe", "taskres", "transclip"]
SYSTEMS = [key for key in FAST if key in registry()]

# What the operating system can hand over: any text without NUL.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12)
numbers = st.one_of(
    st.integers(-3, 40).map(str),
    st.sampled_from(["1", "2", "0", "-1", "nan", "inf", "1e400", "1e-2", "0.01", "٣", "1_0", "0x10", "", "9" * 30]),
    texts,
)
words = st.one_of(numbers, st.sampled_from(["true", "false", "none", "a photo of a {}.", "{}{}", "{0.__class__}", "{"]))


def places(folder) -> list[str]:
    """Paths of all sorts: two that are right, and what else may lie there."""
    for name, count in (("good/cat", 6), ("good/dog", 6), ("one, two/a", 4), ("one, two/b", 4), ("single/cat", 3)):
        for i in range(count):
            save_picture(folder / name / f"{i}.png", 10 * i)
    (folder / "empty").mkdir()
    (folder / "digits").mkdir()
    (folder / "file").write_text("x")
    (folder / "table").mkdir()
    (folder / "table" / "labels.csv").write_text('file,label\n"a,b\n')
    (folder / "nothing").symlink_to("nowhere")
    (folder / "round").symlink_to("round")
    odd = os.fsdecode(b"\xe9t\xe9")
    save_picture(folder / odd / "cat" / "0.png")
    names = [
        "good",
        "one, two",
        "single",
        "empty",
        "file",
        "table",
        "nothing",
        "round",
        odd,
        "missing",
        "x" * 300,
        "good/cat/0.png",
    ]
    return [f"./{name}" for name in names] + [
        "",
        " ",
        ".",
        "~",
        "~nobody-there/x",
        "/dev/null",
        "/proc/1/mem",
        "good",
        "digits",
    ]


@st.composite
def commands(draw, paths: list[str]) -> list[str]:
    path = st.sampled_from(paths)
    system = st.one_of(st.sampled_from(SYSTEMS), texts)
    listed = st.sampled_from([d.name for d in DATASETS if not d.offline] + ["digits", "Digits", "food", "objects_v2"])
    dataset = st.one_of(listed, path, texts)
    backbone = st.one_of(
        st.sampled_from(["micro-vit", "micro-rn", "ViT-B-32/nobody", "ViT-B-32", "@", "/", "ViT-B-32@"]),
        path.map("ViT-B-32@{}".format),
        texts,
    )

    @st.composite
    def setting(draw):
        key = draw(system)
        with contextlib.suppress(VlmlabError):
            key = draw(st.sampled_from([*load_system(key).Config.__dataclass_fields__, "nothing"]))
        return f"{key}={draw(words)}"

    options = {
        "--dataset": dataset, "--backbone": backbone, "--shots": numbers, "--seed": numbers, "--noise": numbers, "--views": numbers,
        "--split": st.one_of(st.sampled_from(["all", "base", "new", "shift", "hierarchy"]), texts), "--targets": dataset,
        "--test-pictures": numbers, "--set": setting(), "--root": path, "--device": st.one_of(st.sampled_from(["cpu", "cuda:7"]), texts),
    }  # fmt: skip
    lists = {
        "--store": st.just("store") | path, "--systems": system, "--datasets": dataset, "--backbones": backbone, "--shots": numbers,
        "--seeds": numbers, "--split": options["--split"], "--set": setting(), "--section": texts | st.just("6.3.1"),
        "--targets": dataset, "--noise": numbers,
    }  # fmt: skip
    small = {
        "table": ([path], {"--out": path}), "grade": ([path], {"--workers": st.sampled_from(["0", "-1", "x"])}),
        "report": ([], {"--datasets": dataset, "--systems": system, "--shots": numbers, "--set": setting(), "--folder": path,
                        "--template": texts, "--words": texts, "--out": path}),
        "verify": ([texts.filter(bool)], {}), "bench": ([texts.filter(bool)], {}), "build": ([texts], {}), "book": ([texts], {}),
        "systems": ([], {}), "datasets": ([], {}), "backbones": ([], {}),
    }  # fmt: skip
    command = draw(st.sampled_from(["run"] * 6 + ["sweep"] * 4 + list(small)) | texts)
    if command == "run":
        before, chosen = ["run", draw(system), "--dataset", draw(dataset), "--test-pictures", "20"], options
    elif command == "sweep":
        before = [
            "sweep",
            "--workers",
            "0",
            "--systems",
            draw(system),
            "--seeds",
            "0",
            "--shots",
            "1",
            "--test-pictures",
            "20",
        ]
        before, chosen = [*before, "--store", draw(lists["--store"])], lists
    else:
        arguments, chosen = small.get(command, ([texts], {}))
        before = [command, *(draw(argument) for argument in arguments)]
    names = draw(st.lists(st.sampled_from(sorted(chosen)), max_size=4)) if chosen else []
    more = [part for name in names for part in (name, draw(chosen[name]))]
    return [
        *before,
        *more,
        *draw(st.sampled_from([[], [], [], ["--json"], ["--skip-broken"], ["--nonsense"], ["--help"]])),
    ]


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """A working directory with odd things in it; fits stop after two steps, reports before their kernel, kernels never start."""
    folder = tmp_path_factory.mktemp("ground")
    paths = places(folder)
    with pytest.MonkeyPatch.context() as patch:
        import vlmlab.studies.run as run

        real = run.fit

        def short(method, task, on_step=None, should_stop=None, *more):
            steps = iter(range(2))
            return real(method, task, on_step, lambda: next(steps, None) is None, *more)

        def halt(*_, **__):
            raise VlmlabError("the report would run now")

        patch.setattr(run, "fit", short)
        patch.setattr("papermill.execute_notebook", halt)
        patch.setenv("VLMLAB_CACHE", str(folder / "cache"))
        for name in ("http_proxy", "https_proxy"):
            patch.setenv(name, "http://127.0.0.1:9")  # no network, at once
        patch.chdir(folder)
        yield paths


@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=not LONG, print_blob=True, suppress_health_check=list(HealthCheck), database=None
)  # fmt: skip
@given(data=st.data())
def test_a_result_or_one_line(ground, data):
    arguments = data.draw(commands(ground), label="arguments")
    out, err = io.StringIO(), io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        warnings.simplefilter("ignore")
        code = main(arguments)
    said = err.getvalue()
    assert "Traceback" not in said
    assert code in (0, 1, 2)
    if code == 2 and said:
        last = said.splitlines()[-1]
        assert last.startswith("vlmlab: ") and len(last) < 2000
    else:
        assert out.getvalue() or said or code == 0
