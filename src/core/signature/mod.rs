//! Stand-in until the signature schemes land.
/// Stand-in.
#[derive(Debug, Clone, Copy)]
pub enum Profile {
    /// Stand-in.
    StandardWebhooks,
}
/// Stand-in.
#[derive(Debug, Clone)]
pub struct Scheme;
