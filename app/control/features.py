"""Where something is read in a request, and what becomes of it: from the wire to its declaration and back."""

from __future__ import annotations

from app.control.schemas import FeatureDocument, SourceDocument
from routing.features import Feature, FeatureType, Source, SourceKind

_BUCKETS = {FeatureType.TEXT: 16, FeatureType.ID: 32}
_PLAIN = Feature(name="", source=Source(kind=SourceKind.HEADER, name=""), type=FeatureType.BOOLEAN)


def source_of(document: SourceDocument) -> Source:
    """Where something is read."""
    ((kind, name),) = document.model_dump(by_alias=True, exclude_none=True).items()
    return Source(kind=SourceKind(kind), name=name)


def source_document(source: Source) -> SourceDocument:
    """The place as a file would declare it."""
    return SourceDocument.model_validate({source.kind.value: source.name})


def feature_of(document: FeatureDocument) -> Feature:
    """A feature's declaration, not checked."""
    return Feature(
        name=document.name,
        source=source_of(document.source),
        type=document.type,
        values=tuple(document.values),
        minimum=_PLAIN.minimum if document.min is None else document.min,
        maximum=_PLAIN.maximum if document.max is None else document.max,
        outside=document.outside,
        buckets=_BUCKETS.get(document.type, 0) if document.buckets is None else document.buckets,
        default=document.default,
    )


def feature_document(feature: Feature) -> FeatureDocument:
    """The feature as a file would declare it, every default of its type written out."""
    is_numeric = feature.type is FeatureType.NUMERIC
    return FeatureDocument.model_validate(
        {
            "name": feature.name,
            "from": {feature.source.kind.value: feature.source.name},
            "type": feature.type,
            "values": list(feature.values),
            "min": feature.minimum if is_numeric else None,
            "max": feature.maximum if is_numeric else None,
            "outside": feature.outside,
            "buckets": feature.buckets or None,
            "default": feature.default,
        }
    )
