//! Tokenizers made of other files, by the tokens that they give.
