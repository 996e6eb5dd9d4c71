//! `kubectl pagurus`: door of the plugin. Parses, asks the API server, prints.
//!
//! It must not know the server's crates: it is a client of the API like any other.

mod args;
mod ask;
mod find;
mod show;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;

use args::{Args, Command, HistoryArgs, Output};
use ask::Server;
use show::Page;

fn main() -> ExitCode {
    let args = Args::parse();
    let run = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = run.map_err(anyhow::Error::from).and_then(|runtime| {
        let Command::History(history) = &args.command;
        runtime.block_on(history_of(&args, history))
    });
    match result.and_then(|text| Ok(write!(std::io::stdout(), "{text}")?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Where nobody can read it, the exit code has to say it.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whoever reads has heard enough: `kubectl pagurus history ... | head`.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// What is printed for `history`.
async fn history_of(args: &Args, wanted: &HistoryArgs) -> Result<String> {
    let (kind, name) = wanted.object()?;
    let server = Server::connect(args).await?;
    let resource = find::resource(&server.discovery().await?, kind)?;
    let object = resource.path(server.namespace(), name);
    if let Some(revision) = wanted.revision {
        let query = format!("limit=1&resourceVersion={revision}&resourceVersionMatch=Exact");
        let page = Page::read(server.history(&object, &query).await?)?;
        let item = page.write_of(revision)?;
        return Ok(if wanted.json() { show::json(item) } else { show::changes(&resource.shown(name), item) });
    }
    let limit = usize::from(wanted.limit);
    let mut all = Page::read(server.history(&object, &format!("limit={limit}")).await?)?;
    while let Some(token) = all.next(limit) {
        let query = format!("limit={}&continue={token}", limit - all.items().len());
        all.append(Page::read(server.history(&object, &query).await?)?);
    }
    Ok(match wanted.output() {
        Output::Json => show::json(all.document()),
        Output::Wide => show::table(&all, true),
        Output::Table => show::table(&all, false),
    })
}
