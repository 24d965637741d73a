"""The law by which a time becomes sizes, with given speeds and counts."""

import itertools

import pytest

from simclr_jax.run import sizes
from simclr_jax.run.sizes import Cost, Network

SPEEDS = (1e-5, 1e-3, 0.1)  # Seconds an image of the network of `UNIT` work.
SIDES = (16, 32, 50, 100, 500)
HOURS = [0.02 * 1.4**power for power in range(25)]


def chosen(hours, *, side=500, speed=1e-3, seen=None, **given):
    networks = sizes.ladder(side, **given)
    measured = {networks[0]: cost(speed * sizes.work(networks[0]) / sizes.UNIT, 1e-5)}
    costs = [sizes.predicted(network, measured) for network in networks]
    time = [3600 * hours] * len(networks)
    return sizes.largest(networks, costs, time, images=5000, seen=seen)


def cost(step, made, shared=True):
    """The cost of an image whose first epoch takes a tenth longer."""
    together = step + made if shared else max(step, made)
    return Cost(step, made, together, 1.1 * together, shared)


@pytest.mark.parametrize(("side", "speed"), [*itertools.product(SIDES, SPEEDS)])
def test_more_time_never_gives_smaller_views_or_less_work(side, speed):
    found = [chosen(hours, side=side, speed=speed) for hours in HOURS]
    for one, other in itertools.pairwise(found):
        assert one.image_size <= other.image_size
        assert one.depth <= other.depth
    works = [sizes.work(network) for network in found]
    assert works == sorted(works)


def test_little_time_takes_the_smallest_network_and_much_the_largest():
    assert chosen(0.001) == Network(64, 18, 0.5)
    assert chosen(1e5) == Network(224, 50, 1.0)


def test_a_slower_machine_never_gets_a_larger_network():
    works = [sizes.work(chosen(1, speed=1e-5 * 1.5**power)) for power in range(30)]
    assert works == sorted(works, reverse=True)
    assert works[0] > works[-1]


@pytest.mark.parametrize("side", SIDES)
def test_views_are_never_larger_than_the_images(side):
    for network in sizes.ladder(side):
        assert network.image_size <= max(side, 8)


@pytest.mark.parametrize("side", SIDES)
def test_the_networks_of_a_ladder_grow(side):
    works = [sizes.work(network) for network in sizes.ladder(side)]
    assert works == sorted(set(works))
    assert len(works) >= 3


@pytest.mark.parametrize("side", SIDES)
def test_views_that_the_imagenet_stem_does_not_take_have_the_small_one(side):
    stems = {(network.stem, network.image_size) for network in sizes.ladder(side)}
    assert ("imagenet" in dict(stems)) == (side == 32)
    assert all(size >= 32 for stem, size in stems if stem == "imagenet")


def test_what_is_given_stays():
    for network in sizes.ladder(500, image_size=96, width=0.5):
        assert (network.image_size, network.width) == (96, 0.5)
    given = {"image_size": 96, "depth": 34, "width": 0.5, "stem": "small"}
    assert sizes.ladder(500, **given) == [Network(96, 34, 0.5, "small")]
    assert {network.image_size for network in sizes.ladder(20, image_size=64)} == {64}


def test_of_a_given_length_the_largest_network_that_ends_in_time_is_taken():
    found = chosen(1, seen=50_000)
    larger = next(network for network in sizes.ladder(500) if network > found)
    each = [1e-3 * sizes.work(network) / sizes.UNIT for network in (found, larger)]
    assert each[0] * 50_000 < 3600 < each[1] * 50_000
    assert chosen(0.001, seen=50_000) is None


def test_the_input_bounds_where_the_devices_are_faster():
    small, large = Network(64, 18, 0.25), Network(64, 18, 0.5)  # Four times the work.
    bound = sizes.predicted(large, {small: cost(1e-4, 1e-3, shared=False)})
    assert bound.together == pytest.approx(1e-3)
    added = sizes.predicted(large, {small: cost(1e-4, 1e-3, shared=True)})
    assert added.together == pytest.approx(4e-4 + 1e-3)


def test_a_measured_cost_is_taken_as_it_is_and_the_nearest_scaled_to_others():
    small, large = Network(64, 18, 0.25), Network(96, 18, 1.0)
    measured = {small: cost(1.0, 1.0), large: cost(10.0, 2.0)}
    assert sizes.predicted(large, measured) == measured[large]
    found, area = sizes.predicted(Network(128, 18, 1.0), measured), (128 / 96) ** 2
    assert found.step == pytest.approx(10 * area)
    assert found.input == pytest.approx(2 * (0.5 + 0.5 * area))
    assert found.together == pytest.approx(found.step + found.input)
    assert found.first - found.together == pytest.approx(0.1 * 12)


@pytest.mark.parametrize("seen", [10.0, 1000.0, 12_345.0])
def test_the_first_epoch_takes_longer(seen):
    found = Cost(1.0, 0.5, together=1.5, first=4.0, shared=True)
    assert found.seen(found.seconds(seen, 1000), 1000) == pytest.approx(seen)
    assert found.seconds(1001, 1000) == 4001.5


@pytest.mark.parametrize("unit", [1, 3, 8, 256])
def test_batches_are_multiples_of_the_devices_and_grow_with_what_is_seen(unit):
    found = [sizes.batch_size(10.0**power, images=10**6, unit=unit) for power in range(1, 12)]
    assert found == sorted(found)
    assert all(size % unit == 0 and size >= 2 for size in found)
    assert max(found) <= max(1024, unit)


@pytest.mark.parametrize(("images", "most"), [(20, 4), (200, 32), (5000, 1024)])
def test_an_epoch_has_at_least_four_batches(images, most):
    assert sizes.batch_size(1e12, images=images, unit=1) == most


def test_a_batch_fits_in_memory():
    network = Network(224, 50, 1.0)
    most = sizes.most_in_memory(network, memory=80 * 2**30, value_bytes=2)
    assert 128 < most < 1024  # 512 views of bfloat16 take about 35 GB.
    assert sizes.batch_size(1e9, images=10**6, unit=1, most=most) <= most
    assert sizes.most_in_memory(network, memory=80 * 2**30, value_bytes=4) == most // 2


def test_the_warm_up_is_a_share_of_the_run():
    for updates in (5, 100, 1500, 10**6):
        assert 0.05 * updates <= sizes.warmup(updates) <= 0.1 * updates


def test_labels_make_an_evaluation_longer():
    found = cost(1.0, 0.1)
    without = sizes.evaluation_seconds(found, images=300, voters=600, labelled=False)
    assert without == pytest.approx(100 + 30)
    labelled = sizes.evaluation_seconds(found, images=300, voters=600, labelled=True)
    assert labelled == pytest.approx(100 + 150 + 30 + 45)
