"""The paper's model and those it is compared with, one file a section; `create_model` builds them by name.

A module here knows tensors only: no videos, no data sets, no training. timm is imported when a backbone is built.
"""

from kinegru.models.classifiers import JoinedClassifier, LinearClassifier
from kinegru.models.committee import ClassifierCommittee, RecurrenceCommittee
from kinegru.models.convgru import ConvGRU
from kinegru.models.encoders import FrameEncoder
from kinegru.models.excitation import ChannelExcitation, Excitation, SpatioTemporalExcitation
from kinegru.models.fusion import AFF, MCAM, MSCAM
from kinegru.models.hub import from_pretrained, push_to_hub, save_pretrained
from kinegru.models.modelfile import LoadedModel, load_model, resolve, save_model
from kinegru.models.recognizer import ActionRecognizer
from kinegru.models.temporal import FrameMean, MapRecurrence, VectorRecurrence
from kinegru.models.zoo import ModelOptions, create_model, list_models

__all__ = [
    "AFF",
    "MCAM",
    "MSCAM",
    "ActionRecognizer",
    "ChannelExcitation",
    "ClassifierCommittee",
    "ConvGRU",
    "Excitation",
    "FrameEncoder",
    "FrameMean",
    "JoinedClassifier",
    "LinearClassifier",
    "LoadedModel",
    "MapRecurrence",
    "ModelOptions",
    "RecurrenceCommittee",
    "SpatioTemporalExcitation",
    "VectorRecurrence",
    "create_model",
    "from_pretrained",
    "list_models",
    "load_model",
    "push_to_hub",
    "resolve",
    "save_model",
    "save_pretrained",
]
