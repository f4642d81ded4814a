//! `postrider config check`: what the gateway would start with, or why it would not.

use std::path::PathBuf;

use serde::Serialize;

use super::exit::{self, Failure};
use super::input::environment;
use super::out::{Out, note};
use crate::config::{Config, ConfigErrors, Overrides, SystemFiles};

/// What `--help` says last.
pub(super) const EXAMPLES: &str = "Examples:
  postrider config check
  postrider config check --config /etc/postrider.toml
  postrider config check --json | jq -r '.errors[] | .message'

Everything that is wrong is told at once; the exit code is then 3. --json prints one object: ok, then errors, or data_dir, \
listeners, sources, endpoints and warnings.";

/// Arguments of `config`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Read file, environment and secrets as `serve` does, and say what is wrong
    #[command(after_help = EXAMPLES)]
    Check(Args),
}

/// Arguments of `config check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file; ./postrider.toml is read if it exists
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints of a good configuration.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    ok: bool,
    data_dir: String,
    listeners: Listeners,
    sources: Vec<SourceLine<'a>>,
    endpoints: Vec<EndpointLine<'a>>,
    warnings: &'a [String],
}

#[derive(Debug, Serialize)]
struct Listeners {
    ingress: String,
    management: String,
}

#[derive(Debug, Serialize)]
struct SourceLine<'a> {
    name: &'a str,
    path: String,
}

#[derive(Debug, Serialize)]
struct EndpointLine<'a> {
    name: &'a str,
    application: &'a str,
    sources: Vec<&'a str>,
    event_types: Vec<String>,
}

/// What `--json` prints of a bad one.
#[derive(Debug, Serialize)]
struct Wrong<'a> {
    ok: bool,
    errors: &'a ConfigErrors,
}

/// Checks.
pub(super) fn run(command: &Command, out: &mut Out) -> Result<u8, Failure> {
    let Command::Check(args) = command;
    let flags = Overrides { config: args.config.clone(), ..Overrides::default() };
    match Config::load(&flags, &environment(), &SystemFiles) {
        Ok(config) => {
            let summary = summary(&config);
            if args.json {
                out.json(&summary)?;
            } else {
                print(&summary, out)?;
                config.warnings.iter().for_each(|warning| note(format_args!("warning: {warning}")));
            }
            Ok(exit::OK)
        }
        Err(errors) => {
            if args.json {
                out.json(&Wrong { ok: false, errors: &errors })?;
            } else {
                out.line(&errors)?;
            }
            Ok(exit::CONFIG)
        }
    }
}

fn summary(config: &Config) -> Summary<'_> {
    let catalog = &config.catalog;
    let mut sources: Vec<_> =
        catalog.sources().map(|s| SourceLine { name: &s.name, path: format!("/in/{}", s.name) }).collect();
    sources.sort_by_key(|line| line.name);
    let mut endpoints: Vec<_> = catalog
        .endpoints()
        .map(|endpoint| EndpointLine {
            name: &endpoint.name,
            application: &endpoint.app_name,
            sources: endpoint.sources.iter().filter_map(|id| catalog.source_name(*id)).collect(),
            event_types: endpoint.event_types.iter().map(ToString::to_string).collect(),
        })
        .collect();
    endpoints.sort_by_key(|line| (line.application, line.name));
    Summary {
        ok: true,
        data_dir: config.data_dir.display().to_string(),
        listeners: Listeners {
            ingress: config.listeners.ingress.to_string(),
            management: config.listeners.management.to_string(),
        },
        sources,
        endpoints,
        warnings: &config.warnings,
    }
}

fn print(summary: &Summary<'_>, out: &mut Out) -> Result<(), Failure> {
    out.line("ok")?;
    out.line(format_args!("data        {}", summary.data_dir))?;
    out.line(format_args!("ingress     http://{}", summary.listeners.ingress))?;
    out.line(format_args!("management  http://{}", summary.listeners.management))?;
    for source in &summary.sources {
        out.line(format_args!("source      {} at {}", source.name, source.path))?;
    }
    for endpoint in &summary.endpoints {
        let sources = endpoint.sources.iter().map(|s| format!("source {s}"));
        let takes: Vec<_> = sources.chain(endpoint.event_types.iter().cloned()).collect();
        let name = match endpoint.application {
            crate::core::endpoint::DEFAULT_APP => endpoint.name.to_owned(),
            application => format!("{application}/{}", endpoint.name),
        };
        out.line(format_args!("endpoint    {name} takes {}", takes.join(", ")))?;
    }
    Ok(())
}
