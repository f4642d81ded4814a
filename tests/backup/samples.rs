//! Data directories and backups that earlier versions wrote open, and hold what they held.
