//! `cargo xtask`: set-up, builds, clusters, tests and benches of this workspace. One module and one `Options` per subcommand.

use clap::{Parser, Subcommand};
use std::io::Write as _;

mod bench;
mod build;
mod cluster;
mod codegen;
mod dist;
mod ebpf;
mod fixtures;
mod images;
mod process;
mod setup;
mod test;
mod tidy;
mod vm;
mod workspace;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Set-up, builds, clusters, tests and benches of Pagurus",
    after_help = "A cluster in one command:   cargo xtask up\nEvery test:                 cargo xtask test"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what this machine lacks (Debian packages, bpf-linker); says what first; called by the others
    Setup(setup::Options),
    /// Build the BPF objects, then every binary, into target/{debug,release}/
    Build(build::Options),
    /// Start a Kubernetes cluster of K nodes on this machine and wait until it serves
    Up(cluster::up::Options),
    /// Remove every trace of a cluster
    Down(cluster::down::Options),
    /// Load docker or OCI image archives into every node's runtime
    Load(cluster::load::Options),
    /// Open a shell, or run a command, inside a node's namespaces
    Enter(cluster::enter::Options),
    /// Run every test: unit, integration, BPF, end-to-end
    Test(test::Options),
    /// Measure and print a table of figures
    Bench(bench::Options),
    /// Make the image of the node agent for installs as a DaemonSet
    Dist(dist::Options),
    /// Remake the generated tables from the facts in a folder
    Codegen(codegen::Options),
    /// Check every wire fixture in a folder, both ways
    Fixtures(fixtures::Options),
    /// Check the house rules that a program can check
    Tidy(tidy::Options),
    /// Keep the processes of a cluster running (started by `up`)
    #[command(hide = true)]
    Supervise(cluster::supervise::Options),
    /// First process of a node's namespaces (started by the supervisor)
    #[command(hide = true)]
    NodeInit(cluster::node::Options),
    /// Ends what a run of the suites has started if the run is ended (started by `test`)
    #[command(hide = true)]
    Guard(test::guard::Options),
}

fn main() -> std::process::ExitCode {
    let result = match Arguments::parse().command {
        Command::Setup(options) => setup::run(&options),
        Command::Build(options) => build::run(&options),
        Command::Up(options) => cluster::up::run(&options),
        Command::Down(options) => cluster::down::run(&options),
        Command::Load(options) => cluster::load::run(&options),
        Command::Enter(options) => cluster::enter::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Dist(options) => dist::run(&options),
        Command::Codegen(options) => codegen::run(&options),
        Command::Fixtures(options) => fixtures::run(&options),
        Command::Tidy(options) => tidy::run(&options),
        Command::Supervise(options) => cluster::supervise::run(&options),
        Command::NodeInit(options) => cluster::node::run(&options),
        Command::Guard(options) => test::guard::run(&options),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            // Where nobody can read it, the exit code has to say it.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
