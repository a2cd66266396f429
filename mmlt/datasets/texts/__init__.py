"""Text beside pictures: class names, sentences of every class, tables and lists."""

from .class_texts import ClassTexts

__all__ = ['ClassTexts']
