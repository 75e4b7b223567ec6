//! `completions` and `man`: what the flags say of themselves, for shells and for `man`.
//!
//! Both are made from the same definition as `--help`, so none of the three can fall behind.

use std::io::Write as _;

use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;

use super::args;

/// Completions for a shell, on stdout.
pub(super) fn completions(args: &args::Completions) -> anyhow::Result<()> {
    let script = script(args.shell);
    std::io::stdout().lock().write_all(script.as_bytes())?;
    Ok(())
}

fn script(shell: Shell) -> String {
    let mut command = args::Args::command();
    let name = command.get_name().to_owned();
    // Into memory first: the generator panics where it cannot write, for example into a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, &name, &mut script);
    let script = String::from_utf8_lossy(&script);
    // clap_complete 4.6.11 splits a program's name at its dash in bash's labels, but not where it goes to them.
    let wrong = format!("{}__subcmd__", name.replace('-', "__subcmd__"));
    let right = format!("{}__subcmd__", name.replace('-', "__"));
    script.replace(&wrong, &right)
}

/// A manual page in roff, on stdout: that of the program, or that of one of its commands.
pub(super) fn man(args: &args::Man) -> anyhow::Result<()> {
    let mut program = args::Args::command();
    program.build();
    let command = match &args.command {
        Some(name) => program
            .find_subcommand(name)
            .expect("the parser accepts names of commands only")
            .clone(),
        None => program,
    };
    let page = page(command)?;
    std::io::stdout().lock().write_all(&page)?;
    Ok(())
}

/// The page of a built command. Its name is that of its file: `swiftprune-wgpu-prune.1`.
fn page(command: clap::Command) -> std::io::Result<Vec<u8>> {
    let title = command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
        .to_owned();
    let page = Man::new(command.version(env!("CARGO_PKG_VERSION"))).title(title);
    let mut roff = Vec::new();
    page.render(&mut roff)?;
    Ok(roff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> clap::Command {
        let mut program = args::Args::command();
        program.build();
        program
    }

    /// The long flags that a command shows.
    fn flags(command: &clap::Command) -> Vec<String> {
        let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
        shown
            .filter_map(|arg| arg.get_long().map(|long| format!("--{long}")))
            .collect()
    }

    #[test]
    fn every_command_has_a_page_with_all_its_flags() {
        let commands: Vec<_> = program().get_subcommands().cloned().collect();
        assert!(commands.len() >= 9, "{} commands", commands.len());
        for command in commands {
            let name = command.get_name().to_owned();
            let flags = flags(&command);
            let text = String::from_utf8(page(command).unwrap()).unwrap();
            assert!(
                text.contains(&format!(".TH swiftprune-wgpu-{name} 1")),
                "{name}: {text:.200}"
            );
            // In roff, a dash of a flag is written `\-`.
            let text = text.replace("\\-", "-");
            for flag in flags {
                assert!(text.contains(&flag), "{name}: {flag} is missing");
            }
        }
    }

    #[test]
    fn the_page_of_the_program_names_every_command() {
        let text = String::from_utf8(page(program()).unwrap()).unwrap();
        for command in program().get_subcommands() {
            let page = format!("swiftprune\\-wgpu\\-{}(1)", command.get_name());
            assert!(text.contains(&page), "{page} is missing: {text}");
        }
    }

    #[test]
    fn every_shell_completes_every_flag() {
        use clap::ValueEnum as _;
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for command in program().get_subcommands() {
                for flag in flags(command) {
                    // Fish writes `-l sparsity`.
                    let fish = flag.replacen("--", "-l ", 1);
                    assert!(
                        script.contains(&flag) || script.contains(&fish),
                        "{shell}: {} {flag} is missing",
                        command.get_name()
                    );
                }
            }
        }
    }

    /// Where bash's script goes for a command is a label that it has.
    #[test]
    fn every_command_has_a_label_in_bash() {
        let script = script(Shell::Bash);
        let goes_to: Vec<&str> = script
            .lines()
            .filter_map(|line| line.trim().strip_prefix("cmd=\"")?.strip_suffix('"'))
            .filter(|label| !label.is_empty())
            .collect();
        assert!(goes_to.len() >= 10, "{goes_to:?}");
        for label in goes_to {
            assert!(
                script.contains(&format!(" {label})\n")),
                "{label} is missing"
            );
        }
    }
}
