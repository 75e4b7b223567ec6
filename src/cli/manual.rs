//! `completions` and `man`: what the flags say of themselves, for shells and for `man`.
//!
//! Both are made from the same definition as `--help`, so none of the three can fall behind.

use std::io::Write as _;

use clap::CommandFactory as _;
use clap_mangen::Man;

use super::args;

/// Completions for a shell, on stdout.
pub(super) fn completions(args: &args::Completions) -> anyhow::Result<()> {
    let mut command = args::Args::command();
    let name = command.get_name().to_owned();
    // Into memory first: the generator panics where it cannot write, for example into a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(())
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
        use clap_complete::Shell;
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut program(), "swiftprune-wgpu", &mut script);
            let script = String::from_utf8(script).unwrap();
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
}
