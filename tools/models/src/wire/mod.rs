//! The other end of a card: where frames come from and go to.

/// What a card is plugged into. Frames are plain: from the destination address on, without frame check sequence.
pub trait Wire: Send {
    /// The next frame for the card, which stays until [`Wire::advance`].
    fn peek(&mut self) -> Option<&[u8]>;
    /// The frame shown last was received or dropped.
    fn advance(&mut self);
    /// Takes a frame that the card transmits. `false` leaves it with the card for later.
    fn transmit(&mut self, frame: &[u8]) -> bool;
    /// A batch begins: time for what is done once in a while, such as reading a clock.
    fn begin(&mut self) {}
}
