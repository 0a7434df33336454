//! Starts the server: addresses, the engine's thread, what is printed, and the orderly end.

use std::io::{BufRead, IsTerminal};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use super::engine::Info;
use super::gate::Gate;
use super::http::connection;
use super::http::guard::Key;
use super::http::origin::Allowed;
use super::lan::{self, Lan};
use super::metrics::Metrics;
use super::pictures::Fetcher;
use super::state::{Server, now};
use super::worker::{Open, Worker};
use super::{Options, bundle, devices_file};
use crate::exit::Interrupted;
use crate::output::{self, note};
use crate::termination;

/// Environment variable with the key, which other users of the machine cannot read from a list of processes.
const KEY_VARIABLE: &str = "DWINDLE_API_KEY";
/// The shortest key; a short one is guessed.
const LEAST_KEY: usize = 8;

/// Serves until a signal ends it.
pub fn run(options: Options) -> Result<()> {
    let key = key(&options)?;
    check_bind(&options, key.is_some())?;
    let allowed = Allowed::new(&options.allow_host, &options.allow_origin, key.is_some())?;
    let (end, ended) = watch::channel(false);
    let end = Arc::new(end);
    let signal = Arc::new(std::sync::atomic::AtomicI32::new(0));
    let (set, stop) = (Arc::clone(&signal), Arc::clone(&end));
    termination::install_with(move |number| {
        set.store(number, std::sync::atomic::Ordering::SeqCst);
        let _ = stop.send(true);
    })?;
    // One thread serves; the engine has its own, and what takes long gets others.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(8).build();
    let runtime = runtime.context("cannot start the server")?;
    let result = runtime.block_on(serve(options, key, allowed, ended));
    // Whatever a thread still computes is not waited for.
    runtime.shutdown_background();
    result?;
    match signal.load(std::sync::atomic::Ordering::SeqCst) {
        0 => Ok(()),
        termination::INTERRUPT => Err(Interrupted.into()),
        number => termination::end(number),
    }
}

fn key(options: &Options) -> Result<Option<Key>> {
    let given = options.api_key.clone().or_else(|| std::env::var(KEY_VARIABLE).ok().filter(|key| !key.is_empty()));
    match given {
        Some(key) if key.len() < LEAST_KEY => {
            bail!(
                "the API key has {} characters; use at least {LEAST_KEY}, such as those of `openssl rand -hex 16`",
                key.len()
            )
        }
        Some(key) => Ok(Some(Key::new(&key))),
        None => Ok(None),
    }
}

fn check_bind(options: &Options, has_key: bool) -> Result<()> {
    let is_local = options.bind.to_canonical().is_loopback();
    if options.lan && !is_local {
        bail!("--lan chooses the address itself; leave out --bind");
    }
    if !is_local && !has_key {
        bail!(
            "--bind {} lets other machines use the model: set --api-key (or {KEY_VARIABLE}), or use --lan, which pairs devices",
            options.bind
        );
    }
    Ok(())
}

async fn serve(options: Options, key: Option<Key>, allowed: Allowed, mut ended: watch::Receiver<bool>) -> Result<()> {
    let listeners = listen(&options).await?;
    let addresses = listeners.iter().map(TcpListener::local_addr).collect::<std::io::Result<Vec<_>>>()?;
    let urls: Vec<String> = addresses.iter().map(|address| format!("http://{address}")).collect();
    let url = shown(addresses[0]);
    let lan = match options.lan || key.is_some() {
        true => Lan::on(devices_file()?, urls.get(1).cloned())?,
        false => Lan::off(),
    };
    let metrics = Arc::new(Metrics::default());
    let (failed, failure) = oneshot::channel();
    let idle = options.idle.map(Duration::from_secs);
    let queue = usize::from(options.queue);
    let (json, prints_code) = (options.json, options.lan);
    let (tells_metrics, fetches) = (options.metrics, options.allow_image_urls);
    let model = options.name.clone().unwrap_or_else(|| model_name(&options.models.models));
    let open: Open = Box::new(move || {
        let engine = bundle::open(&options.models, usize::from(options.slots))?;
        tell(&engine.info());
        Ok(engine)
    });
    let worker = Worker::start(open, queue, idle, Arc::clone(&metrics), failed)?;
    let server = Arc::new(Server {
        worker,
        model,
        metrics,
        tells_metrics,
        allowed,
        key,
        lan,
        fetcher: fetches.then(Fetcher::new),
        bodies: Default::default(),
        url: url.clone(),
        started: now(),
    });
    print(&server, json, prints_code)?;
    let gate = Gate::new(Arc::clone(&server));
    let (close, closed) = watch::channel(false);
    let serving: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            let gate = gate.clone();
            let respond = move |peer, request| gate.clone().respond(peer, request);
            tokio::spawn(connection::serve(listener, closed.clone(), respond))
        })
        .collect();
    let failure = async {
        match failure.await {
            Ok(error) => error,
            // The thread ended as it was asked to.
            Err(_) => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        _ = ended.wait_for(|ended| *ended) => Ok(()),
        error = failure => Err(error),
    };
    // Streams end with an error event, and whoever waits is refused.
    server.worker.close();
    let _ = close.send(true);
    for task in serving {
        let _ = task.await;
    }
    result
}

/// The address that a person opens: an unspecified one stands for all.
fn shown(address: SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => format!("http://127.0.0.1:{}", address.port()),
        false => format!("http://{address}"),
    }
}

/// Where it listens: at the address that was chosen, and for `--lan` at that of the local network.
async fn listen(options: &Options) -> Result<Vec<TcpListener>> {
    let first = bind(options.bind, options.port).await?;
    let port = first.local_addr()?.port();
    let mut listeners = vec![first];
    if options.lan {
        let address = lan::local_address()
            .context("this machine is in no network that a phone could be in; connect it to one, or leave out --lan")?;
        listeners.push(bind(address, port).await?);
    }
    Ok(listeners)
}

async fn bind(address: IpAddr, port: u16) -> Result<TcpListener> {
    let address = SocketAddr::from((address, port));
    TcpListener::bind(address).await.with_context(|| match port {
        0 => format!("cannot listen on {address}"),
        _ => format!("cannot listen on {address}; another program may: choose another --port, or 0 for any"),
    })
}

/// The name of what is served: that of the bundle's file, or those of the models.
fn model_name(models: &[String]) -> String {
    let name = |model: &String| {
        let path = std::path::Path::new(model);
        let is_packed = path.extension().is_some_and(|extension| extension == "dwindle" || extension == "gguf");
        let name = if is_packed { path.file_stem() } else { path.file_name() };
        name.map_or_else(|| model.clone(), |name| name.to_string_lossy().into_owned())
    };
    match models {
        [] => "demo".to_owned(),
        models => models.iter().map(name).collect::<Vec<_>>().join("+"),
    }
}

/// Prints the address on stdout, and how devices get in on stderr.
fn print(server: &Arc<Server>, json: bool, prints_code: bool) -> Result<()> {
    let pairing = server.lan.pairing_url(&server.url)?;
    match json {
        true => output::json(&serde_json::json!({ "url": server.url, "pairing_url": pairing }).to_string())?,
        false => output::line(&server.url)?,
    }
    if prints_code {
        print_code(server)?;
        wait_for_enter(Arc::clone(server))?;
    } else if let Some(pairing) = pairing {
        note!("To use the page without typing the key, open {pairing}");
    }
    Ok(())
}

fn print_code(server: &Server) -> Result<()> {
    if let Some(url) = server.lan.pairing_url(&server.url)? {
        note!("{}", lan::terminal(&url)?);
        note!("Scan the code with a phone in the same network, or open {url} there.");
        note!("It pairs one device within 15 minutes; Enter shows another one. `dwindle serve --devices` lists them.");
    }
    Ok(())
}

/// Each line from a terminal shows a new code.
fn wait_for_enter(server: Arc<Server>) -> Result<()> {
    if !std::io::stdin().is_terminal() || !is_in_front() {
        return Ok(());
    }
    let read = move || {
        for line in std::io::stdin().lock().lines() {
            if line.is_err() || print_code(&server).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("terminal".to_owned()).spawn(read).context("cannot read the terminal")?;
    Ok(())
}

/// Whether the terminal's keys are for this program; reading them from the background would stop it.
#[cfg(unix)]
fn is_in_front() -> bool {
    rustix::termios::tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
}

#[cfg(not(unix))]
fn is_in_front() -> bool {
    true
}

/// What the engine is, and the memory that it takes.
fn tell(info: &Info) {
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    note!("dwindle {} · {} · {}", env!("CARGO_PKG_VERSION"), info.models.join(" + "), info.device);
    note!(
        "memory: at most {} MiB, whatever the number of clients; weights once, {} saved conversations of {} MiB each",
        mebibytes(info.planned_peak_bytes),
        info.slots,
        mebibytes(info.slot_bytes)
    );
    info.notes.iter().for_each(|line| note!("note: {line}"));
}
