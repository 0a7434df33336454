//! Devices of the same house: a token pairs one, a cookie knows it again.

mod address;
mod code;
mod devices;
mod token;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use anyhow::Result;

pub use address::local_address;
pub use code::{svg, terminal};
pub use devices::{Device, Devices, directory};
use token::Token;

/// Paired devices and the token that pairs the next one.
pub struct Lan {
    /// Where devices reach this server; `None` where it listens for this machine alone.
    url: Option<String>,
    /// `None` where nobody is paired: no key and no other machine.
    pairing: Option<Mutex<Pairing>>,
}

struct Pairing {
    devices: Devices,
    token: Token,
}

impl Lan {
    /// Nobody is paired.
    pub fn off() -> Lan {
        Lan { url: None, pairing: None }
    }

    /// Devices are paired, and remembered in a file.
    ///
    /// # Errors
    /// The file cannot be read, or the system has no random numbers.
    pub fn on(file: PathBuf, url: Option<String>) -> Result<Lan> {
        let pairing = Pairing { devices: Devices::open(file)?, token: Token::new()? };
        Ok(Lan { url, pairing: Some(Mutex::new(pairing)) })
    }

    fn pairing(&self) -> Option<MutexGuard<'_, Pairing>> {
        let pairing = self.pairing.as_ref()?;
        Some(pairing.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where devices reach this server.
    pub fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// Whether devices can be paired.
    pub fn pairs(&self) -> bool {
        self.pairing.is_some()
    }

    /// The address that pairs the next device; a token that is spent or old is replaced.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn pairing_url(&self, base: &str) -> Result<Option<String>> {
        let Some(mut pairing) = self.pairing() else { return Ok(None) };
        if !pairing.token.is_fresh() {
            pairing.token = Token::new()?;
        }
        let base = self.url.as_deref().unwrap_or(base);
        Ok(Some(format!("{base}/pair?token={}", pairing.token.text())))
    }

    /// Pairs a device that shows the token; gives its secret. The token is spent.
    ///
    /// # Errors
    /// The devices cannot be written.
    pub fn pair(&self, token: &str, name: &str) -> Result<Option<String>> {
        let Some(mut pairing) = self.pairing() else { return Ok(None) };
        if !pairing.token.spend(token) {
            return Ok(None);
        }
        pairing.devices.add(name, SystemTime::now()).map(Some)
    }

    /// The device that has a secret.
    pub fn device_of(&self, secret: &str) -> Option<String> {
        self.pairing()?.devices.find(secret, SystemTime::now())
    }

    /// All devices.
    pub fn devices(&self) -> Vec<Device> {
        self.pairing().map(|pairing| pairing.devices.list().to_vec()).unwrap_or_default()
    }

    /// Forgets a device; `false` where there is none of this number.
    ///
    /// # Errors
    /// The devices cannot be written.
    pub fn revoke(&self, id: &str) -> Result<bool> {
        let Some(mut pairing) = self.pairing() else { return Ok(false) };
        pairing.devices.revoke(id)
    }
}
