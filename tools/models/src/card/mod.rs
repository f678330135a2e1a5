//! What all chips have in common: a card with a chip on it, plugged into a bus on one side and a wire on the other.

mod chip;

pub use chip::{Bus, Chip, Dma, Hint, Layout, WindowLayout, Work};
