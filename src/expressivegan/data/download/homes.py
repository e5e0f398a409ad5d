"""Where public data sets live, and under which licence."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Home:
    """Where a data set lives, and what its makers say about it."""

    title: str
    page: str
    """For people."""
    url: str
    """Of the file itself."""
    file: str
    """Its name on disk."""
    size: int
    """Bytes, as published."""
    md5: str | None
    """As published; None where nothing is."""
    licence: str
    citation: str


def _pneumoniamnist(suffix: str, side: int, size: int, md5: str) -> Home:
    file = f"pneumoniamnist{suffix}.npz"
    return Home(
        title=f"PneumoniaMNIST, {side}x{side}, of MedMNIST",
        page="https://zenodo.org/records/10519652",
        url=f"https://zenodo.org/records/10519652/files/{file}?download=1",
        file=file,
        size=size,
        md5=md5,
        licence="CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
        citation="J. Yang et al.: MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image "
        "classification. Scientific Data 10, 41 (2023), https://doi.org/10.1038/s41597-022-01721-8. The pictures: "
        "D. S. Kermany et al.: Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep Learning. "
        "Cell 172, 1122-1131 (2018), https://doi.org/10.1016/j.cell.2018.02.010",
    )


HOMES: dict[str, Home] = {
    "kermany": Home(
        title="Chest X-ray images of Kermany, Zhang and Goldbaum, version 2",
        page="https://data.mendeley.com/datasets/rscbjbr9sj/2",
        url="https://data.mendeley.com/public-files/datasets/rscbjbr9sj/files/"
        "f12eaf6d-6023-432f-acc9-80c9d7393433/file_downloaded",
        file="ChestXRay2017.zip",
        size=1_235_512_464,
        md5=None,  # none is published; what came is recorded in a side file, and the ZIP's own CRCs are checked
        licence="CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
        citation="D. Kermany, K. Zhang, M. Goldbaum: Labeled Optical Coherence Tomography (OCT) and Chest X-Ray Images "
        "for Classification. Mendeley Data, V2 (2018), https://doi.org/10.17632/rscbjbr9sj.2. The article: "
        "D. S. Kermany et al.: Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep Learning. "
        "Cell 172, 1122-1131 (2018), https://doi.org/10.1016/j.cell.2018.02.010",
    ),
    # MD5 sums as in medmnist.INFO
    "pneumoniamnist": _pneumoniamnist("", 28, 4_170_669, "28209eda62fecd6e6a2d98b1501bb15f"),
    "pneumoniamnist-64": _pneumoniamnist("_64", 64, 20_606_998, "8f4eceb4ccffa70c672198ea285246c6"),
    "pneumoniamnist-128": _pneumoniamnist("_128", 128, 75_506_212, "05b46931834c231683c68f40c47b2971"),
    "pneumoniamnist-224": _pneumoniamnist("_224", 224, 214_384_716, "d6a3c71de1b945ea11211b03746c1fe1"),
}
