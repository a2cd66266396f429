from .bank import AnchorBank
from .file import Anchors
from .scoring import METHODS, check_selection, select_sentences, sentence_scores

__all__ = ['METHODS', 'AnchorBank', 'Anchors', 'check_selection', 'select_sentences', 'sentence_scores']
