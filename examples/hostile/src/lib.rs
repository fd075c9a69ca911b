//! Assets that nobody should have to trust, and two honest ones beside them.
//!
//! Each does one thing that a sandbox has to contain; its description says what, and `flowstone.toml` says how it ends.
//! One that succeeds in what it tries returns what it got, so that a hole in the sandbox shows as an output. What the
//! rest needs of the machine below Rust is in `table.wat` and `garbage.wat`.

mod exhaust;
mod honest;
mod reach;
