//! The reference evaluator: plain f32 loops that define what each operation means.
