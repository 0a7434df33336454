//! Which models a command runs and where: options, and how they become an open bundle.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use dwindle_bundle::Bundle;

use crate::compile::{Target, compile_sources};
use crate::device::{Device, Kind};
use crate::output::note;
use crate::progress::Bars;
use crate::source::{Preparation, Source, open_bundle};
use crate::{cache, demo, schemes};

/// Options of commands that chat.
#[derive(Debug, clap::Args)]
pub struct Models {
    /// A bundle; or model directories, checkpoints or hub ids: one model, or one that sees and one that chats.
    /// Without any, the built-in demo models
    pub models: Vec<String>,

    /// Positions of the KV cache, for sources that are compiled here
    #[arg(long, value_name = "N")]
    pub context: Option<u32>,

    /// Where to run: a bundle for several targets on the one of this kind, models that are compiled here on whatever suits
    #[arg(long = "device", value_enum, value_name = "KIND", default_value_t)]
    pub kind: Kind,

    #[command(flatten)]
    pub device: Device,

    #[command(flatten)]
    pub preparation: Preparation,
}

impl Models {
    /// The bundle that the user named, or one compiled from what the user named.
    ///
    /// # Errors
    /// It cannot be opened or made.
    pub fn open(&self) -> Result<Bundle> {
        let bars = Bars::default();
        let revision = self.preparation.revision.as_deref();
        let resolve = |text: &String| Source::resolve(text, revision, &bars);
        let sources = self.models.iter().map(resolve).collect::<Result<Vec<_>>>()?;
        match sources.as_slice() {
            [] => demo::open(&Target::for_device(self.kind, &self.device), &bars),
            [Source::Bundle(path)] => self.device.select(&open_bundle(path)?, self.kind),
            _ if sources.iter().any(|s| matches!(s, Source::Bundle(_))) => {
                bail!("a bundle stands alone: name one bundle, or several checkpoints or model directories")
            }
            _ => self.open_compiled(&sources, &bars),
        }
    }

    fn open_compiled(&self, sources: &[Source], bars: &Bars) -> Result<Bundle> {
        let directory = cache::directory()?;
        let target = Target { context: self.context, ..Target::for_device(self.kind, &self.device) };
        let mut key = cache::Key::new("run");
        key.add(target.name().name().as_bytes());
        key.add(format!("{:?}", schemes::named(self.preparation.scheme())?).as_bytes());
        key.add(self.preparation.method.to_string().as_bytes());
        key.add(&self.context.unwrap_or(0).to_le_bytes());
        self.preparation.ignore_key.iter().for_each(|ignored| key.add(ignored.as_bytes()));
        for source in sources {
            key.add(source.name().as_bytes());
            for file in source.content_files()? {
                key.add_file(&file)?;
            }
        }
        let path = key.path(&directory);
        if !path.is_file() {
            note!("compiling for this device; the result is kept in {}", directory.display());
        }
        while !path.is_file() {
            match compile_sources(sources, &self.preparation, &target, &path, bars) {
                // Somebody else compiles the same; what comes of it is as good.
                Err(error) if is_busy(&error) => std::thread::sleep(Duration::from_millis(200)),
                compiled => compiled?.warnings.iter().for_each(|warning| note!("warning: {warning}")),
            }
        }
        Bundle::open(&path)
            .with_context(|| format!("the cached bundle {} cannot be used; remove it and try again", path.display()))
    }
}

fn is_busy(error: &anyhow::Error) -> bool {
    use dwindle_compiler::Error;
    matches!(error.downcast_ref::<Error>(), Some(Error::OutputBusy { .. }))
}
