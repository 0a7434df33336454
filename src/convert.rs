//! `dwindle convert`: a checkpoint becomes a model directory, quantized on the way where a scheme is named.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use dwindle_compiler::checkpoint::{Announced, Announcement, Conversion, ConvertReport, IgnoredKeys, Keep, ModelDir};
use dwindle_compiler::work::Work;
use dwindle_quant::Method;
use dwindle_schemes::Scheme;
use serde_json::json;

use crate::destination;
use crate::hub::{self, Hub, Listing, Place, RemoteFile};
use crate::output::{self, note};
use crate::progress::Bars;
use crate::source::{Named, Source};
use crate::work::Announce;
use crate::{said, schemes};

/// Options of `convert`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// A local Hugging Face directory, one of MLC's weights, a GGUF file, or a hub id like google/gemma-2-2b-it
    source: String,

    /// Quantize on the way: a scheme (see `dwindle schemes`), or the file of another one. The full-precision model is never on
    /// disk as a whole, not even for a hub id
    #[arg(long, value_name = "NAME|FILE.toml")]
    scheme: Option<String>,

    /// How codes are chosen: rtn (round to nearest) or search (least squared error, same size)
    #[arg(long, default_value = "rtn", requires = "scheme")]
    method: Method,

    /// The model directory to write
    #[arg(short, long, value_name = "MODEL_DIR")]
    output: PathBuf,

    /// Revision of a hub id: a branch, tag or commit
    #[arg(long)]
    revision: Option<String>,

    /// Keep what is downloaded for a quantization in the hub's cache
    #[arg(long, requires = "scheme")]
    keep_source: bool,

    /// Leave KEY out of the configuration of a checkpoint, as messages spell it, although it may change what is computed; repeat for
    /// several
    #[arg(long, value_name = "KEY")]
    ignore_key: Vec<String>,

    #[command(flatten)]
    announce: Announce,
}

impl Options {
    fn ignored(&self) -> IgnoredKeys {
        IgnoredKeys::new(self.ignore_key.clone())
    }
}

/// Converts.
pub fn run(options: Options) -> Result<()> {
    let bars = Bars::default();
    let scheme = options.scheme.as_deref().map(schemes::named).transpose()?;
    // A hub id is no path, and the hub's cache is looked at anyway.
    destination::check(&options.output, destination::Kind::Directory, &[Path::new(&options.source)])?;
    if let Some(scheme) = &scheme
        && Source::is_hub_id(&options.source)
    {
        let hub = Hub::from_env()?;
        let listing = hub.list(&options.source, options.revision.as_deref())?;
        if let Some(done) = from_hub(&hub, &listing, scheme, &options, &bars)? {
            return done.tell(&options);
        }
    }
    match Source::resolve(&options.source, options.revision.as_deref(), &bars)? {
        Source::Checkpoint(named) => from_disk(&named, scheme, &options, &bars)?.tell(&options),
        Source::ModelDir(named) => bail!("{} is a model directory already; quantize it next", named.path.display()),
        Source::Bundle(path) => bail!("{} is a file; convert reads the directory of a checkpoint", path.display()),
    }
}

/// What came of a conversion, if it was more than a dry run.
struct Done {
    work: Work,
    result: Option<(ModelDir, ConvertReport)>,
}

fn from_disk(named: &Named, scheme: Option<Scheme>, options: &Options, bars: &Bars) -> Result<Done> {
    let wants_scheme = scheme.is_some();
    let quantization = scheme.map(|scheme| (scheme, options.method));
    let conversion = Conversion::open_ignoring(&named.path, &options.ignored(), quantization)?;
    said::warnings(conversion.notes());
    if let Some(packed) = conversion.packed_as().filter(|_| wants_scheme) {
        bail!("{} is packed already, as {packed}; leave out --scheme to keep that", named.path.display());
    }
    let work = conversion.work().clone();
    let result = match options.announce.begin(&work, &options.output)? {
        true => Some(conversion.run(&options.output, bars)?),
        false => None,
    };
    Ok(Done { work, result })
}

/// Quantizes while the shards arrive; `None` if this checkpoint must be there as a whole.
fn from_hub(hub: &Hub, listing: &Listing, scheme: &Scheme, options: &Options, bars: &Bars) -> Result<Option<Done>> {
    let mut directory = None;
    for arrival in hub.arrivals(listing, listing.companions().cloned().collect(), &Place::Cache, bars)? {
        directory = arrival?.path.parent().map(PathBuf::from);
    }
    let (Some(directory), Some(_)) = (directory, listing.weights().next()) else {
        bail!(hub::Error::NoWeights { id: listing.id.clone() });
    };
    let announced = |file: &RemoteFile| Announced {
        name: file.name.clone(),
        bytes: file.size,
        hash: file.digest.to_string(),
        is_here: hub.missing_bytes(listing, std::slice::from_ref(file), &Place::Cache) == 0,
    };
    let keep = if options.keep_source { Keep::Files } else { Keep::Nothing };
    let files = listing.weights().map(announced).collect();
    let ignored = options.ignored();
    let Some(announcement) = Announcement::open(&directory, files, keep, &ignored, scheme, options.method)? else {
        return Ok(None);
    };
    said::warnings(&announcement.notes());
    let work = announcement.work().clone();
    if !options.announce.begin(&work, &options.output)? {
        return Ok(Some(Done { work, result: None }));
    }
    let mut arriving = announcement.begin(&options.output)?;
    let remaining = arriving.remaining();
    if remaining.len() < announcement.files().len() {
        note!(
            "{} of {} files are done already",
            announcement.files().len() - remaining.len(),
            announcement.files().len()
        );
    }
    let is_remaining = |file: &&RemoteFile| remaining.iter().any(|announced| announced.name == file.name);
    let files = listing.weights().filter(is_remaining).cloned().collect();
    let place = match keep {
        Keep::Files => Place::Cache,
        Keep::Nothing => Place::Folder(arriving.folder()),
    };
    let told = |error: hub::Error| {
        note!(
            "what is done so far is kept in {}.partial; the same command goes on from there",
            options.output.display()
        );
        error
    };
    for arrival in hub.arrivals(listing, files, &place, bars).map_err(told)? {
        let arrival = arrival.map_err(told)?;
        match arriving.file(&arrival.file.name, &arrival.path, bars) {
            // Only the whole checkpoint tells which head counts.
            Err(dwindle_compiler::Error::OwnHead { .. }) => return Ok(None),
            transcribed => transcribed?,
        }
        arrival.discard()?;
    }
    let result = arriving.finish(&options.output)?;
    if keep == Keep::Files {
        // What an earlier attempt had done was perhaps not kept.
        hub.fetch(listing, bars)?;
    }
    Ok(Some(Done { work, result: Some(result) }))
}

impl Done {
    fn tell(self, options: &Options) -> Result<()> {
        let Some((model, report)) = self.result else { return Ok(()) };
        said::warnings(&report.notes);
        said::warnings(&report.warnings);
        let card = model.model.card.as_ref();
        if options.announce.json {
            let ConvertReport { warnings, notes, tensors, bytes, ignored } = report;
            let report = json!({
                "tensors": tensors, "bytes": bytes, "ignored": ignored, "notes": notes, "warnings": warnings,
            });
            let text = json!({ "work": self.work, "report": report, "scheme": model.scheme(), "card": card });
            output::json(&format!("{text:#}"))?;
            return Ok(());
        }
        if let Some(card) = card {
            output::line(card)?;
        }
        note!("{report}");
        let output = options.output.display();
        match model.scheme() {
            Some(_) if options.scheme.is_some() => note!("next: dwindle compile {output} -o {output}.dwindle"),
            Some(scheme) => note!("packed already ({scheme}); next: dwindle compile {output} -o {output}.dwindle"),
            None => note!("next: dwindle quantize {output} --scheme q4f16_1 -o {output}-q4f16_1"),
        }
        Ok(())
    }
}
