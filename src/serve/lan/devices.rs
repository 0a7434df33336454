//! Paired devices, in a file that only its user reads, and that holds no secret: hashes of cookies alone.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::token::random;

/// The most devices that are remembered.
const MOST: usize = 64;
/// The most letters of a device's name.
const MOST_NAME: usize = 80;
/// When a device was last seen is written this often at most.
const SEEN: Duration = Duration::from_secs(3600);
/// How long a cookie is valid.
pub const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// Environment variable that names another directory for the user's data.
pub const DATA_VARIABLE: &str = "DWINDLE_DATA";

/// A paired device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its number.
    pub id: String,
    /// What its browser says it is.
    pub name: String,
    /// Seconds since 1970.
    pub paired_at: u64,
    /// Seconds since 1970.
    pub last_seen: u64,
    /// BLAKE3 of its secret, which has 256 random bits.
    secret_hash: String,
}

/// All paired devices.
#[derive(Debug)]
pub struct Devices {
    file: PathBuf,
    list: Vec<Device>,
}

/// The directory of the user's data.
///
/// # Errors
/// There is no home directory.
pub fn directory() -> Result<PathBuf> {
    match std::env::var_os(DATA_VARIABLE) {
        Some(path) if !path.is_empty() => Ok(path.into()),
        _ => {
            let found = directories::ProjectDirs::from("", "", "dwindle");
            let found = found.with_context(|| {
                format!("there is no home directory to remember devices in; set {DATA_VARIABLE} to a directory")
            })?;
            Ok(found.data_dir().to_owned())
        }
    }
}

impl Devices {
    /// Reads them; a file that is not there is an empty one.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn open(file: PathBuf) -> Result<Devices> {
        let list = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is damaged; remove it and pair the devices again", file.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        };
        Ok(Devices { file, list })
    }

    /// All of them, the newest last.
    pub fn list(&self) -> &[Device] {
        &self.list
    }

    /// Adds one; gives its secret, which is kept nowhere.
    ///
    /// # Errors
    /// There are too many, or the file cannot be written.
    pub fn add(&mut self, name: &str, now: SystemTime) -> Result<String> {
        if self.list.len() >= MOST {
            bail!("{MOST} devices are paired already; revoke one first");
        }
        let (secret, id) = (hex(&random::<32>()?), hex(&random::<6>()?));
        let name: String = name.chars().filter(|c| !c.is_control()).take(MOST_NAME).collect();
        let name = if name.trim().is_empty() { "a device".to_owned() } else { name };
        let now = seconds(now);
        let device = Device { id, name, paired_at: now, last_seen: now, secret_hash: hash(&secret) };
        self.list.push(device);
        if let Err(error) = self.write() {
            self.list.pop();
            return Err(error);
        }
        Ok(secret)
    }

    /// The number of the device that has a secret.
    pub fn find(&mut self, secret: &str, now: SystemTime) -> Option<String> {
        let (given, now) = (hash(secret), seconds(now));
        let is_it = |device: &Device| -> bool { device.secret_hash.as_bytes().ct_eq(given.as_bytes()).into() };
        let device = self.list.iter_mut().find(|device| is_it(device))?;
        if now.saturating_sub(device.paired_at) > YEAR.as_secs() {
            return None;
        }
        let id = device.id.clone();
        if now.saturating_sub(device.last_seen) > SEEN.as_secs() {
            device.last_seen = now;
            if let Err(error) = self.write() {
                tracing::warn!("{error:#}");
            }
        }
        Some(id)
    }

    /// Forgets one; `false` where there is none of this number.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn revoke(&mut self, id: &str) -> Result<bool> {
        let Some(at) = self.list.iter().position(|device| device.id == id) else { return Ok(false) };
        let device = self.list.remove(at);
        if let Err(error) = self.write() {
            // It would come back with the next start.
            self.list.insert(at, device);
            return Err(error);
        }
        Ok(true)
    }

    /// Writes the file aside and renames it.
    fn write(&self) -> Result<()> {
        let folder = self.file.parent().unwrap_or(Path::new("."));
        let failed = || format!("cannot write {}", self.file.display());
        std::fs::create_dir_all(folder).with_context(failed)?;
        // Made with mode 0600.
        let mut aside = tempfile::NamedTempFile::new_in(folder).with_context(failed)?;
        aside.write_all(serde_json::to_string_pretty(&self.list)?.as_bytes()).with_context(failed)?;
        aside.as_file().sync_all().with_context(failed)?;
        aside.persist(&self.file).with_context(failed)?;
        Ok(())
    }
}

fn hash(secret: &str) -> String {
    blake3::hash(secret.as_bytes()).to_hex().to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_remembered_and_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/devices.json");
        let mut devices = Devices::open(file.clone()).unwrap();
        let now = SystemTime::now();
        let secret = devices.add("Phone\u{1b}[31m\n", now).unwrap();
        let other = devices.add("", now).unwrap();
        assert_eq!(devices.list()[0].name, "Phone[31m");
        let written = std::fs::read_to_string(&file).unwrap();
        assert!(!written.contains(&secret) && !written.contains(&other));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let mut again = Devices::open(file.clone()).unwrap();
        let id = again.find(&secret, now).unwrap();
        assert_eq!(again.find("nonsense", now), None);
        assert_eq!(again.find(&secret, now + YEAR + SEEN), None);
        assert!(again.revoke(&id).unwrap() && !again.revoke(&id).unwrap());
        assert_eq!(again.find(&secret, now), None);
        assert!(again.find(&other, now).is_some());
        assert_eq!(Devices::open(file).unwrap().list().len(), 1);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("devices.json");
        std::fs::write(&file, "{").unwrap();
        let error = Devices::open(file).unwrap_err().to_string();
        assert!(error.contains("devices.json is damaged"), "{error}");
    }

    #[test]
    fn not_endlessly_many() {
        let folder = tempfile::tempdir().unwrap();
        let mut devices = Devices::open(folder.path().join("devices.json")).unwrap();
        for _ in 0..MOST {
            devices.add("x", SystemTime::now()).unwrap();
        }
        assert!(devices.add("x", SystemTime::now()).unwrap_err().to_string().contains("revoke one"));
    }
}
