"""The arteries of a head, with their variants, in canonical mm: the posterior circulation, and all together."""

import numpy as np

from ai.locations import Location
from training.phantom.carotids import lay_anterior, lay_external, lay_internal, lay_middle
from training.phantom.frame import FloatArray
from training.phantom.head import Head
from training.phantom.scan import OTHER_ARTERY
from training.phantom.tree import Tree, label_of, mirror, sided, widened
from training.phantom.tubes import STEP_MM, Tube


def _posterior(tree: Tree) -> None:
    """Vertebral and basilar arteries, posterior cerebral and communicating arteries, cerebellar arteries."""
    rng = tree.rng
    other = label_of(Location.OTHER_POSTERIOR)
    lean = rng.normal(0, 1.8)
    width = float(np.clip(rng.normal(3.15, 0.45), 2.2, 4.5))
    join = np.array([lean + rng.normal(0, 1.5), -20.0, -29.0]) + rng.normal(0, [0.5, 0.8, 3.0])
    tip = np.array([rng.normal(0, 1.2), -14.0, -3.0]) + rng.normal(0, [0.3, 1.0, 2.2])
    basilar = tree.lay(
        "basilar",
        [join, (2 * join + tip) / 3 + [lean, -0.3, 0], (join + 2 * tip) / 3 + [lean * 0.8, -0.3, 0], tip],
        (width, width * 0.95, width * 0.9),
        other,
        wiggle_mm=0.5,
    )
    near_tip = max(int(len(basilar.points) - 5.0 / STEP_MM), 1)
    tree.tubes["basilar"] = Tube("basilar", basilar.points[: near_tip + 1], basilar.radius[: near_tip + 1], other)
    tree.tubes["basilar_tip"] = Tube(
        "basilar_tip", basilar.points[near_tip:], basilar.radius[near_tip:], label_of(Location.BASILAR_TIP)
    )
    dominant = rng.choice(["L", "R"], p=[0.6, 0.4])
    for side in "LR":
        sign = 1 if side == "L" else -1
        va = float(np.clip(rng.normal(3.0, 0.35), 2.2, 4.0)) * (1.05 if side == dominant else rng.uniform(0.65, 1.0))
        if side != dominant and rng.uniform() < 0.12:
            va = rng.uniform(1.0, 1.6)
            tree.variants.append(f"{side} vertebral hypoplasia")
        dura = tree.near(mirror(side, (11, -31, -49)), 1.0)
        low = [
            tree.near(mirror(side, p), 1.2)
            for p in (
                (22, -15, -170),
                (22, -15, -130),
                (22, -15, -100),
                (21, -15, -86),
                (27, -15, -76),
                (27, -20, -66),
                (24, -32, -61),
                (16, -34, -57),
            )
        ]
        tree.lay(f"{side}_vertebral_neck", [*low, dura], (va * 1.1, va), OTHER_ARTERY, wiggle_mm=0.8)
        v4 = tree.lay(
            f"{side}_V4",
            [
                dura,
                tree.near(mirror(side, (8.5, -26.5, -42)), 1.5),
                tree.near(mirror(side, (4.5, -21.5, -34)), 1.2),
                join,
            ],
            (va, va * 0.92, va * 0.85),
            other,
            wiggle_mm=0.7,
        )
        if rng.uniform() < 0.85:
            where = v4.points[int(rng.uniform(0.25, 0.6) * len(v4.points))]
            tree.lay(
                f"{side}_PICA",
                [
                    where,
                    *(
                        tree.near(mirror(side, p), 1.6)
                        for p in (
                            (14, -31, -44),
                            (13, -38, -50),
                            (8, -43, -46),
                            (7, -45, -38),
                            (6, -52, -36),
                            (8, -62, -44),
                        )
                    ),
                ],
                (min(rng.uniform(1.1, 1.8), va), 1.1, 0.8),
                other,
                wiggle_mm=1.0,
                inside_mm=2.0,
            )
        whole = len(tree.tubes["basilar"].points)
        aica = tree.tubes["basilar"].points[int(rng.uniform(0.25, 0.6) * whole)]
        tree.lay(
            f"{side}_AICA",
            [
                aica,
                *(
                    tree.near(mirror(side, p), 1.3)
                    for p in ((10, -20.5, -23), (18, -22, -24), (24, -26, -22), (24, -32, -26), (32, -42, -32))
                ),
            ],
            (rng.uniform(0.8, 1.3), 0.6),
            other,
            wiggle_mm=0.8,
            inside_mm=1.0,
        )
        sca = basilar.points[-max(int(rng.uniform(1.8, 3.5) / STEP_MM), 2)]
        tree.lay(
            f"{side}_SCA",
            [
                sca,
                *(
                    tree.near(mirror(side, p), 1.2)
                    for p in ((7, -16, -5.5), (14, -22, -7), (18, -31, -6), (15, -41, -1), (14, -55, 3))
                ),
            ],
            (rng.uniform(1.2, 1.7), 1.0, 0.7),
            other,
            wiggle_mm=0.7,
            inside_mm=1.0,
        )
        _posterior_cerebral(tree, side, sign, tip, other)


def _posterior_cerebral(tree: Tree, side: str, sign: int, tip: FloatArray, other: int) -> None:
    rng = tree.rng
    kind = rng.choice(["adult", "absent", "fetal"], p=[0.45, 0.38, 0.17])
    pca = float(np.clip(rng.normal(2.05, 0.25), 1.5, 2.7))
    fork = tree.near(mirror(side, (8.5, -14.5, -1.5)), 1.3)
    p1 = float(rng.uniform(0.6, 1.1)) if kind == "fetal" else pca
    bow = rng.normal(0.5, 1.2)
    tree.lay(f"{side}_P1", [tip, (tip + fork) / 2 + [0, 0.5, bow], fork], (p1, p1), other, wiggle_mm=0.4)
    route = ((15, -20, -1), (19, -29, 1), (20, -38, 4), (16, -48, 7), (13, -58, 9), (11, -72, 8), (9, -86, 8))
    p2 = tree.lay(
        f"{side}_P2",
        [fork, *(tree.near(mirror(side, p), 1.3) for p in route)],
        (pca, pca * 0.9, pca * 0.75, 1.1, 0.8),
        other,
        wiggle_mm=0.9,
        inside_mm=2.0,
    )
    for number in range(rng.integers(2, 5)):
        tree.offshoot(
            f"{side}_P3_{number}",
            p2,
            rng.uniform(0.25, 0.9),
            rng.uniform(18, 40),
            (1.1, 0.6),
            toward=np.array([rng.uniform(0, 12) * sign, -9.0, rng.normal(0, 9)]),
        )
    for number in range(rng.integers(0, 3)):
        tree.offshoot(
            f"{side}_thalamic_{number}",
            tree.tubes[f"{side}_P1"],
            rng.uniform(0.1, 0.9),
            rng.uniform(6, 14),
            (0.6, 0.4),
            toward=np.array([0.0, -6.0, 9.0]),
            bend=0.2,
        )
    if kind == "absent":
        tree.variants.append(f"{side} PCom absent")
        return
    supra = tree.tubes[f"{side}_ICA_supra"]
    start = supra.points[int(rng.uniform(0.38, 0.5) * len(supra.points))]
    width = pca * rng.uniform(0.95, 1.05) if kind == "fetal" else float(rng.uniform(0.7, 1.7))
    if kind == "fetal":
        tree.variants.append(f"{side} fetal PCA")
    path = [start, tree.near(mirror(side, (11.5, -1, -4.5)), 0.8), tree.near(mirror(side, (10, -8, -4.5)), 0.9), fork]
    tree.lay(
        f"{side}_PCOM", path, (width * 1.1, width, width), label_of(sided(side, Location.LEFT_PCOM)), wiggle_mm=0.5
    )


def draw_arteries(head: Head, rng: np.random.Generator, *, tortuosity: float) -> Tree:
    """All arteries of a head; `tortuosity` scales how far they stray from their course."""
    tree = Tree(head, rng, tortuosity)
    for side in "LR":
        lay_internal(tree, side)
    lay_anterior(tree)
    for side in "LR":
        lay_middle(tree, side)
    _posterior(tree)
    for name in ("L_M1", "R_M1", "L_ICA_supra", "R_ICA_supra", "basilar_tip", "L_A1", "R_A1", "L_P1", "R_P1"):
        tree.tubes[name] = widened(tree.tubes[name], rng)
    for side in "LR":
        lay_external(tree, side)
    return tree
