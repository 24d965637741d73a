"""The warnings of a run, in its log and in its folder."""

from etils import epath

from simclr_jax.run import warned
from simclr_jax.run.health import Warned

STUCK = Warned("stuck", 100, "step 100: the contrastive loss is 7.38")
COLLAPSE = Warned("collapse", 300, "step 300: all embeddings have become the same")


def test_warnings_are_logged_and_kept(tmp_path, warnings):
    root = epath.Path(tmp_path)
    assert warned.read(root) is None
    kept = warned.Kept(root, 0)
    assert warned.read(root) == {}
    kept(STUCK)
    kept(COLLAPSE)
    assert warnings() == [STUCK.line, COLLAPSE.line]
    assert warned.read(root) == {"stuck": STUCK, "collapse": COLLAPSE}


def test_a_run_that_goes_on_keeps_what_was_told_up_to_its_step(tmp_path):
    root = epath.Path(tmp_path)
    kept = warned.Kept(root, 0)
    kept(STUCK)
    kept(COLLAPSE)
    again = warned.Kept(root, 200)
    assert warned.read(root) == {"stuck": STUCK}
    again(COLLAPSE._replace(step=250))
    assert warned.read(root)["collapse"].step == 250
    warned.Kept(root, 0)
    assert warned.read(root) == {}


def test_a_run_of_an_earlier_version_has_no_list_until_it_warns(tmp_path):
    root = epath.Path(tmp_path)
    kept = warned.Kept(root, 200)
    assert warned.read(root) is None
    kept(COLLAPSE)
    assert warned.read(root) == {"collapse": COLLAPSE}


def test_a_file_that_cannot_be_written_or_read_ends_nothing(tmp_path, warnings):
    root = epath.Path(tmp_path)
    (tmp_path / warned.FILE).mkdir()
    warned.Kept(root, 0)(STUCK)
    assert warnings()[1] == STUCK.line
    assert "warnings.json: not written (" in warnings()[0]
    assert warned.read(root) is None
