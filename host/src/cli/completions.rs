//! `flowstone completions`: what a shell needs to complete our commands.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Exit, arguments::CommandLine, print};

/// Prints the script.
pub(super) fn run(shell: Shell) -> anyhow::Result<Exit> {
    print::text(&script(shell))?;
    Ok(Exit::Succeeded)
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "flowstone", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_every_command_unharmed() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let script = script(shell);
            for command in CommandLine::command().get_subcommands().filter(|command| !command.is_hide_set()) {
                assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
            }
            // It leaves through the same door as everything else, where control characters become pictures.
            let printed = print::neutral(&script);
            assert!(printed.replace(' ', "") == script.replace([' ', '\t'], ""), "{shell} needs control characters");
        }
    }
}
