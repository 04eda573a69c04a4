import matplotlib.pyplot as plt
import numpy as np

from rlkit.plots import style


def test_band_covers_all_seeds_and_its_line_is_the_median():
    fig, axes = plt.subplots()
    curves = np.array([[0.0, 1.0, 5.0], [2.0, 4.0, 9.0]])
    style.band(axes, np.array([0.0, 1.0]), curves, color="k")
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [1.0, 4.0])
    corners = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert corners.min() == 0
    assert corners.max() == 9
    plt.close(fig)


def test_band_of_a_single_run_is_a_line():
    fig, axes = plt.subplots()
    style.band(axes, np.arange(3.0), np.arange(3.0), color="k")
    assert len(axes.lines) == 1
    assert not axes.collections
    plt.close(fig)


def test_save_gives_the_same_bytes_for_the_same_figure(tmp_path):
    written = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with style.paper():
            fig, axes = plt.subplots()
            axes.plot([0, 1], [0, 1])
            style.save(fig, tmp_path / name)
        written.append(
            [(tmp_path / name / f"figure.{kind}").read_bytes() for kind in ("pdf", "png")]
        )
    assert written[0] == written[1]


def test_paper_style_ends_with_the_block():
    before = plt.rcParams["font.size"]
    with style.paper():
        assert plt.rcParams["font.size"] == 8
    assert plt.rcParams["font.size"] == before
