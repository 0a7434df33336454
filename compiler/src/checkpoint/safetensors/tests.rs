//! Hostile headers, mistaken files, and what is written must read back.
use super::*;
