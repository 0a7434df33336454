//! `dwindle serve`: one engine that many conversations share, for a page and for programs that speak OpenAI's API.

mod api;
mod bundle;
mod draft;
mod engine;
mod error;
mod gate;
mod http;
mod lan;
mod metrics;
mod page;
mod pictures;
mod queue;
mod request;
mod start;
mod state;
mod tools;
mod updates;
mod worker;

use std::net::IpAddr;

use anyhow::Result;

use crate::models::Models;
use crate::output;

/// Options of `serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Options {
    #[command(flatten)]
    models: Models,

    /// Address to listen on; one that other machines reach needs --api-key, or use --lan
    #[arg(long, alias = "host", value_name = "ADDRESS", default_value = "127.0.0.1")]
    bind: IpAddr,

    /// Port to listen on; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 8080)]
    port: u16,

    /// Let phones and computers of this network in, each paired once by a code that is shown here
    #[arg(long)]
    lan: bool,

    /// Key that requests must show as `Authorization: Bearer KEY` [env: DWINDLE_API_KEY]
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,

    /// Web origin whose pages may use the API, like http://localhost:3000; repeat for several
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,

    /// Host name under which this server is reached, besides addresses and localhost; repeat for several
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,

    /// Fetch pictures that requests name by http and https addresses, from the public internet alone
    #[arg(long)]
    allow_image_urls: bool,

    /// Conversations whose state is kept in memory, so that their next turn reads only what is new
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    slots: u16,

    /// Requests that may wait while one is answered
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(0..=1024))]
    queue: u16,

    /// Release the weights after so many seconds without a request
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    idle: Option<u64>,

    /// Serve counters at /metrics, as Prometheus reads them
    #[arg(long)]
    metrics: bool,

    /// Name of the model in the API [default: that of the bundle or its models]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Print one JSON object with the address instead of the address
    #[arg(long)]
    json: bool,

    /// List the paired devices and exit
    #[arg(long, conflicts_with_all = ["lan", "json"])]
    devices: bool,

    /// Forget a paired device, by its number in --devices, and exit
    #[arg(long, value_name = "ID", conflicts_with_all = ["lan", "json", "devices"])]
    revoke: Option<String>,
}

const AFTER_HELP: &str = "\
Examples:
  dwindle serve                                  the demo at http://127.0.0.1:8080
  dwindle serve model.dwindle --lan              for a phone in the same house: scan the code
  dwindle serve model.dwindle --api-key KEY --bind 0.0.0.0

Programs use http://127.0.0.1:8080/v1 as the base URL of OpenAI's API, with any key where none is set.
Nothing of a request is logged or sent anywhere. Ctrl-C ends the server.";

/// Runs.
pub fn run(options: Options) -> Result<()> {
    if options.devices {
        return list_devices();
    }
    if let Some(id) = &options.revoke {
        return revoke(id);
    }
    start::run(options)
}

/// The file that remembers paired devices.
fn devices_file() -> Result<std::path::PathBuf> {
    Ok(lan::directory()?.join("devices.json"))
}

fn list_devices() -> Result<()> {
    let devices = lan::Devices::open(devices_file()?)?;
    for device in devices.list() {
        output::line(format!("{}  {}", device.id, output::name(&device.name)))?;
    }
    Ok(())
}

fn revoke(id: &str) -> Result<()> {
    match lan::Devices::open(devices_file()?)?.revoke(id)? {
        true => Ok(()),
        false => anyhow::bail!("there is no paired device {id}; `dwindle serve --devices` lists them"),
    }
}

#[cfg(test)]
mod tests;
