"""Why a person rejects a finding, in words."""

from storage.queries.reviews import Rejection

REJECTIONS = {
    Rejection.INFUNDIBULUM: "Infundibulum",
    Rejection.VESSEL_LOOP: "Vessel loop or curve",
    Rejection.BIFURCATION: "Normal bifurcation",
    Rejection.VEIN: "Vein",
    Rejection.CALCIFICATION: "Calcified plaque",
    Rejection.ARTEFACT: "Artefact",
    Rejection.TREATED: "Treated: clip or coil",
    Rejection.OTHER: "Other",
}
