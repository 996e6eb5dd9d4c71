//! The command line, with kubectl's own names for what kubectl has too.

use std::path::PathBuf;

use anyhow::{Result, bail};

/// What a Pagurus cluster can tell and kubectl does not ask
///
/// The plugin finds its cluster as kubectl does: --kubeconfig, else $KUBECONFIG, else ~/.kube/config; the current context and its
/// namespace unless others are given.
#[derive(clap::Parser, Debug)]
#[command(name = "kubectl-pagurus", bin_name = "kubectl pagurus", version)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
    /// The kubeconfig file
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The namespace of the object
    #[arg(long, short, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
}

/// What to do.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Who changed which field of an object, and when
    ///
    /// The API server keeps every write of the last minutes, and `metadata.managedFields` tells whose each field is: together they say
    /// what happened. Each line is one write, the newest first. An object that was deleted still has its history, and one that was
    /// made again under the same name has that of its predecessor too.
    #[command(after_help = EXAMPLES)]
    History(HistoryArgs),
}

const EXAMPLES: &str = "\
Examples:
  # What happened to a Deployment
  kubectl pagurus history deployment web

  # The same with the values before and after
  kubectl pagurus history deploy/web -o wide

  # One write in full: every field, old and new
  kubectl pagurus history deploy/web --revision 4711

  # For programs: an ObjectHistory of pagurus.io/v1alpha1
  kubectl pagurus history deploy/web --json

EVENT is Created, Modified, Deleted, or Retained: the oldest state that is kept, of which nobody can say what it changed.
BY names the field managers; it is <none> where a write only removed fields or deleted the object, since no entry tells of that.
An old state as a whole: kubectl get --raw '/api/v1/namespaces/N/configmaps/C?resourceVersion=R&resourceVersionMatch=Exact'.";

/// Flags of `history`.
#[derive(clap::Args, Debug)]
pub struct HistoryArgs {
    /// KIND NAME, or KIND/NAME; the kind by any name kubectl knows it by: deployment, deploy, deployments.apps
    #[arg(required = true, num_args = 1..=2, value_names = ["KIND", "NAME"])]
    words: Vec<String>,
    /// Only the write that made this resourceVersion, with all values
    #[arg(long, value_name = "N")]
    pub revision: Option<u64>,
    /// At most so many writes
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    pub limit: u16,
    /// Print the API's own object
    #[arg(long)]
    json: bool,
    /// How to print
    #[arg(long, short, value_enum, conflicts_with = "json")]
    output: Option<Output>,
}

/// How to print.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// A line for each write
    Table,
    /// The same with the values before and after
    Wide,
    /// The API's own object
    Json,
}

impl HistoryArgs {
    /// The kind and the name.
    pub fn object(&self) -> Result<(&str, &str)> {
        match self.words.as_slice() {
            [kind, name] if !kind.contains('/') => Ok((kind, name)),
            [both] => match both.split_once('/') {
                Some((kind, name)) if !kind.is_empty() && !name.is_empty() => Ok((kind, name)),
                _ => bail!("{both:?} names no object: give KIND NAME or KIND/NAME"),
            },
            words => bail!("{:?} names no object: give KIND NAME or KIND/NAME", words.join(" ")),
        }
    }

    /// How to print.
    pub fn output(&self) -> Output {
        if self.json { Output::Json } else { self.output.unwrap_or(Output::Table) }
    }

    /// Whether to print JSON.
    pub fn json(&self) -> bool {
        self.output() == Output::Json
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use clap::Parser as _;

    fn parsed(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(std::iter::once("kubectl-pagurus").chain(line.split(' ')))
    }

    #[test]
    fn objects() {
        for (line, wanted) in [
            ("history deploy web", Some(("deploy", "web"))),
            ("history deployments.apps/web", Some(("deployments.apps", "web"))),
            ("history deploy", None),
            ("history deploy/ web", None),
            ("history /web", None),
        ] {
            let args = parsed(line).unwrap();
            let Command::History(history) = &args.command;
            assert_eq!(history.object().ok(), wanted, "{line}");
        }
        for line in
            ["history", "history a b c", "history a b --limit 0", "history a b --json -o wide", "story"]
        {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    #[test]
    fn flags_stand_where_kubectl_users_put_them() {
        let args =
            parsed("history deploy web -n there --context c --kubeconfig f -o wide --revision 7").unwrap();
        assert_eq!((args.namespace.as_deref(), args.context.as_deref()), (Some("there"), Some("c")));
        let Command::History(history) = &args.command;
        assert_eq!((history.output(), history.revision, history.limit), (Output::Wide, Some(7), 50));
    }

    #[test]
    fn the_command_line_is_sound() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }
}
