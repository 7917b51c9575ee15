"""The carotid circulation: internal carotid, middle and anterior cerebral arteries, external branches."""

import numpy as np

from ai.locations import Location
from training.phantom.scan import OTHER_ARTERY
from training.phantom.tree import Point, Tree, label_of, mirror, sided


def lay_internal(tree: Tree, side: str) -> None:
    """The internal carotid from the neck to its terminus, ophthalmic and anterior choroidal arteries."""
    rng = tree.rng
    infra = label_of(sided(side, Location.LEFT_INFRACLINOID_ICA))
    supra = label_of(sided(side, Location.LEFT_SUPRACLINOID_ICA))
    wide = float(np.clip(rng.normal(4.7, 0.55), 3.4, 6.3))
    end = float(np.clip(rng.normal(3.5, 0.4), 2.5, 4.4))
    lift, reach = rng.normal(0, 1.6), rng.normal(0, 2.2)  # how tightly the siphon is folded
    canal = tree.near(mirror(side, (25, -17, -38)), 1.0)
    neck = [tree.near(mirror(side, (29, -20, z)), 3.0) for z in (-170, -140, -110, -85)]
    tree.lay(
        f"{side}_ICA_neck",
        [*neck, tree.near(mirror(side, (27, -20, -60)), 2.0), canal],
        (wide + 0.4, wide),
        OTHER_ARTERY,
        wiggle_mm=1.0,
        wave_mm=40,
    )
    ring = tree.near(mirror(side, (12.6, 8.5 + 0.4 * reach, -7.5)), 0.7)
    siphon = [
        canal,
        tree.near(mirror(side, (23.5, -14.5, -30)), 0.8),
        tree.near(mirror(side, (18, -8.5, -25.5)), 0.8),
        tree.near(mirror(side, (15.5, -8.5 + 0.3 * reach, -19.5 - 0.3 * lift)), 0.9),
        tree.near(mirror(side, (14.8, -1, -17.5 - 0.5 * lift)), 1.0),
        tree.near(mirror(side, (14.5, 7 + 0.6 * reach, -16 - 0.4 * lift)), 0.9),
        tree.near(mirror(side, (14, 11 + reach, -12.5)), 0.8),
        ring,
    ]
    tree.lay(f"{side}_ICA_infra", siphon, (wide, wide, wide * 0.96, wide * 0.9), infra, wiggle_mm=0.35)
    top = tree.near(mirror(side, (13, 2, 2)), 1.3)
    mid = tree.near(mirror(side, (12, 4, -3.2)), 0.9)
    tree.lay(f"{side}_ICA_supra", [ring, mid, top], (wide * 0.88, end + 0.25, end), supra, wiggle_mm=0.3)
    ophthalmic = tree.tubes[f"{side}_ICA_supra"].points[2]
    tree.lay(
        f"{side}_ophthalmic",
        [
            ophthalmic,
            *(
                tree.near(mirror(side, p), 0.8)
                for p in ((13.5, 14, -7), (16.5, 21, -9), (24, 33, -8), (22, 47, -5), (20, 58, -4))
            ),
        ],
        (rng.uniform(1.0, 1.5), 0.8),
        OTHER_ARTERY,
        wiggle_mm=0.8,
    )
    supra_tube = tree.tubes[f"{side}_ICA_supra"]
    tree.offshoot(
        f"{side}_choroidal",
        supra_tube,
        rng.uniform(0.6, 0.75),
        24,
        (rng.uniform(0.7, 1.1), 0.5),
        toward=np.array(mirror(side, (4, -18, 1))),
    )
    for number in range(rng.integers(1, 3)):  # superior hypophyseal
        tree.offshoot(
            f"{side}_hypophyseal_{number}",
            supra_tube,
            rng.uniform(0.2, 0.5),
            6,
            (0.6, 0.4),
            toward=np.array(mirror(side, (-6, -3, 1))),
        )


def lay_middle(tree: Tree, side: str) -> None:
    """The middle cerebral artery to its cortical branches."""
    rng = tree.rng
    label = label_of(sided(side, Location.LEFT_MCA))
    top = tree.tubes[f"{side}_ICA_supra"].points[-1]
    wide = float(np.clip(rng.normal(2.9, 0.35), 2.0, 3.9))
    length = float(np.clip(rng.normal(21, 5), 9, 32))
    bow, fore = rng.normal(0, 2.2), rng.normal(0, 1.8)
    fork = top + np.array(mirror(side, (length, float(rng.normal(-0.5, 2.5)), float(rng.normal(0, 2.5)))))
    m1 = tree.lay(
        f"{side}_M1",
        [
            top,
            0.65 * top + 0.35 * fork + [0, 1.5 + fore, bow],
            0.3 * top + 0.7 * fork + [0, 1.0 + fore * 0.6, bow],
            fork,
        ],
        (wide, wide * 0.97, wide * 0.9),
        label,
        wiggle_mm=0.5,
    )
    routes: list[tuple[str, tuple[Point, ...]]] = [
        (
            "superior",
            (
                (40, 5, 6),
                (42, 0, 14),
                (42, -8, 20),
                (46, -11, 23),
                (54, -9, 15),
                (60, -12, 20),
                (62, -20, 34),
                (58, -30, 50),
            ),
        ),
        (
            "inferior",
            ((40, -6, 1), (43, -14, 4), (44, -24, 9), (50, -28, 10), (58, -34, 6), (62, -44, 14), (60, -58, 24)),
        ),
    ]
    if rng.uniform() < 0.2:
        routes.append(
            ("middle", ((41, -2, 5), (42, -8, 12), (43, -17, 17), (50, -20, 17), (59, -22, 14), (63, -28, 26)))
        )
        tree.variants.append(f"{side} MCA trifurcation")
    share = rng.normal(0, 0.2)
    for rank, (name, route) in enumerate(routes):
        start = wide * (0.8 + (share if rank == 0 else -share) - 0.1 * (len(routes) - 2))
        m2 = tree.lay(
            f"{side}_M2_{name}",
            [fork, *(tree.near(mirror(side, p), 1.8) for p in route)],
            (start, start * 0.8, start * 0.6, 1.0, 0.8),
            label,
            wiggle_mm=1.0,
            wave_mm=11,
            inside_mm=2.0,
        )
        for number in range(rng.integers(4, 8)):
            fall = rng.uniform(0.12, 0.85)
            toward = np.array(
                mirror(side, (float(rng.uniform(0, 12)), float(rng.normal(0, 12)), float(rng.normal(6, 10))))
            )
            width = 1.5 * (1.1 - 0.5 * fall) * rng.uniform(0.8, 1.2)
            m3 = tree.offshoot(
                f"{side}_M2_{name}_{number}",
                m2,
                fall,
                rng.uniform(25, 70),
                (width, 0.7),
                toward=toward,
                surface=fall > 0.5,
            )
            if rng.uniform() < 0.6:
                tree.offshoot(
                    f"{side}_M4_{name}_{number}",
                    m3,
                    rng.uniform(0.4, 0.8),
                    rng.uniform(20, 45),
                    (width * 0.75, 0.6),
                    toward=toward + rng.normal(0, 6, 3),
                    surface=True,
                )
    tree.offshoot(
        f"{side}_anterior_temporal",
        m1,
        rng.uniform(0.3, 0.85),
        rng.uniform(18, 35),
        (rng.uniform(0.9, 1.5), 0.7),
        toward=np.array(mirror(side, (9, 10, -12))),
    )
    for number in range(rng.integers(2, 6)):  # lenticulostriate arteries
        tree.offshoot(
            f"{side}_striate_{number}",
            m1,
            rng.uniform(0.1, 0.85),
            rng.uniform(8, 22),
            (rng.uniform(0.45, 0.8), 0.4),
            toward=np.array([rng.normal(0, 2), -3.0, 12.0]),
            bend=0.2,
        )


def lay_anterior(tree: Tree) -> None:
    """Both anterior cerebral arteries and the communicating artery between them."""
    rng = tree.rng
    shift = rng.normal(0, 1.3)
    centre = np.array([shift, rng.normal(12, 1.6), rng.normal(3, 1.6)])
    gap = float(rng.uniform(0.9, 2.2))
    hypoplastic = {side: rng.uniform() < 0.06 for side in "LR"}
    width = float(np.clip(rng.normal(2.2, 0.3), 1.5, 3.0))
    for side in "LR":
        label = label_of(sided(side, Location.LEFT_ACA))
        sign = 1 if side == "L" else -1
        top = tree.tubes[f"{side}_ICA_supra"].points[-1]
        fork = centre + np.array([sign * gap, rng.normal(0, 0.6), rng.normal(0, 0.6)])
        a1 = width * (rng.uniform(0.3, 0.5) if hypoplastic[side] else rng.uniform(0.88, 1.12))
        if hypoplastic[side]:
            tree.variants.append(f"{side} A1 hypoplasia")
        sag = rng.normal(0, 1.5)
        tree.lay(
            f"{side}_A1",
            [top, 0.6 * top + 0.4 * fork + [0, 1.0, sag], 0.25 * top + 0.75 * fork + [0, 0.5, sag * 0.8], fork],
            (a1, a1 * 0.95),
            label,
            wiggle_mm=0.6,
        )
        apart = sign * rng.uniform(1.0, 2.6)
        drift = rng.normal(0, 1.0)
        high = rng.normal(0, 2.5)
        genu = (
            (apart + drift, 19.5, 9),
            (apart + drift, 27, 19 + high),
            (apart, 30 + 0.5 * high, 28 + high),
            (apart, 25, 36 + high),
            (apart, 8, 43 + high),
            (apart, -15, 45 + high),
            (apart, -36, 40 + high),
        )
        a2_width = width * rng.uniform(0.8, 0.98)
        a2 = tree.lay(
            f"{side}_A2",
            [fork, *(tree.near(p, 0.9) for p in genu)],
            (a2_width, a2_width * 0.85, a2_width * 0.65, 1.0, 0.8),
            label,
            wiggle_mm=0.7,
            inside_mm=2.0,
        )
        where = rng.uniform(0.2, 0.35)
        leave = a2.points[int(where * (len(a2.points) - 1))]
        tree.lay(
            f"{side}_callosomarginal",
            [
                leave,
                *(
                    tree.near((apart * 1.2, y, z + high), 1.5)
                    for y, z in ((38, 34), (38, 46), (24, 58), (2, 64), (-18, 68))
                ),
            ],
            (1.6, 1.3, 0.8),
            label,
            wiggle_mm=1.0,
            inside_mm=2.0,
        )
        tree.offshoot(
            f"{side}_frontopolar",
            a2,
            rng.uniform(0.06, 0.14),
            rng.uniform(25, 45),
            (1.1, 0.7),
            toward=np.array([0.3 * sign, 14.0, 3.0]),
            bend=0.25,
        )
        tree.offshoot(
            f"{side}_orbitofrontal",
            a2,
            rng.uniform(0.02, 0.06),
            rng.uniform(15, 30),
            (0.9, 0.6),
            toward=np.array([1.0 * sign, 12.0, -3.0]),
            bend=0.25,
        )
        tree.offshoot(f"{side}_Heubner", a2, 0.01, 14, (0.6, 0.4), toward=np.array([10.0 * sign, -6.0, 2.0]))
        for number in range(rng.integers(3, 6)):
            tree.offshoot(
                f"{side}_A3_{number}",
                a2,
                rng.uniform(0.4, 0.95),
                rng.uniform(20, 50),
                (1.0, 0.6),
                toward=np.array([0.5 * sign, rng.normal(0, 6), 12.0]),
                bend=0.3,
            )
    left, right = tree.tubes["L_A2"].points[0], tree.tubes["R_A2"].points[0]
    middle = (left + right) / 2 + rng.normal(0, 0.5, 3)
    acom = float(np.clip(rng.normal(1.35, 0.35), 0.7, 2.3))
    tree.lay("ACOM", [left, middle, right], (acom, acom), label_of(Location.ACOM), wiggle_mm=0.1)


def lay_external(tree: Tree, side: str) -> None:
    """Branches of the external carotid: temporal, maxillary, meningeal, facial and occipital arteries."""
    rng = tree.rng
    trunk = tree.lay(
        f"{side}_ECA",
        [
            tree.near(mirror(side, p), 2.0)
            for p in ((34, -10, -170), (36, -8, -130), (44, -8, -90), (54, -10, -62), (58, -11, -52))
        ],
        (3.6, 2.6),
        OTHER_ARTERY,
        wiggle_mm=1.0,
        wave_mm=25,
    )
    end = trunk.points[-1]
    scalp = tree.head.skull_mm + 0.6 * tree.head.scalp_mm
    temporal = tree.lay(
        f"{side}_temporal",
        [end, *(tree.near(mirror(side, p), 2.0) for p in ((68, -12, -35), (72, -8, -15), (72, 0, 10), (66, 18, 40)))],
        (1.8, 1.0),
        OTHER_ARTERY,
        wiggle_mm=1.8,
        level_mm=scalp,
    )
    tree.lay(
        f"{side}_temporal_parietal",
        [
            temporal.points[len(temporal.points) // 2],
            *(tree.near(mirror(side, p), 2.0) for p in ((70, -22, 25), (64, -34, 50))),
        ],
        (1.3, 0.8),
        OTHER_ARTERY,
        wiggle_mm=1.8,
        level_mm=scalp,
    )
    maxillary = tree.lay(
        f"{side}_maxillary",
        [
            end,
            *(
                tree.near(mirror(side, p), 1.5)
                for p in ((50, -4, -48), (40, 8, -45), (30, 20, -40), (24, 26, -36), (24, 34, -40))
            ),
        ],
        (2.4, 1.4),
        OTHER_ARTERY,
        wiggle_mm=1.2,
    )
    spinous = mirror(side, (37, -4, -34))
    tree.lay(
        f"{side}_meningeal",
        [
            maxillary.points[len(maxillary.points) // 3],
            np.array(spinous),
            *(tree.near(mirror(side, p), 2.0) for p in ((48, 8, -26), (56, 14, -8), (60, 8, 16), (58, -6, 44))),
        ],
        (1.3, 1.0, 0.7),
        OTHER_ARTERY,
        wiggle_mm=0.8,
        level_mm=-0.4,
    )
    tree.lay(
        f"{side}_facial",
        [tree.near(mirror(side, p), 2.5) for p in ((40, -2, -110), (44, 20, -100), (40, 48, -80), (26, 66, -50))],
        (2.0, 1.1),
        OTHER_ARTERY,
        wiggle_mm=1.8,
    )
    tree.lay(
        f"{side}_occipital",
        [
            tree.near(mirror(side, p), 2.5)
            for p in ((42, -20, -80), (46, -45, -58), (44, -75, -40), (34, -98, -10), (26, -104, 20))
        ],
        (1.6, 0.9),
        OTHER_ARTERY,
        wiggle_mm=1.8,
    )
    for number in range(rng.integers(2, 5)):
        tree.lay(
            f"{side}_face_{number}",
            [
                tree.near(
                    mirror(
                        side, (float(rng.uniform(20, 55)), float(rng.uniform(-5, 50)), float(rng.uniform(-90, -40)))
                    ),
                    3,
                )
                for _ in range(3)
            ],
            (rng.uniform(0.8, 1.6), 0.7),
            OTHER_ARTERY,
            wiggle_mm=1.5,
        )
