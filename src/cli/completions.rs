//! `postrider completions`: a shell's completion script.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Cli;
use super::exit::{self, Failure};
use super::out::Out;

/// What `--help` says last.
pub(super) const EXAMPLES: &str = "Examples:
  postrider completions bash > ~/.local/share/bash-completion/completions/postrider
  postrider completions zsh > ~/.zfunc/_postrider
  postrider completions fish > ~/.config/fish/completions/postrider.fish";

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub(super) fn run(args: &Args, out: &mut Out) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "postrider", &mut script);
    out.bytes(script.trim_ascii_end())?;
    Ok(exit::OK)
}
