//! Values to codes and back: pure functions over slices
