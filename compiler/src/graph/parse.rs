//! Parses the text form of a graph.
