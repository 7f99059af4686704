//! Certificates: a CA and its leaf certificates, in files that are replaced as in Kubernetes.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType};
use tempfile::TempDir;

/// A certificate authority.
pub(crate) struct TestCa(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub(crate) struct CertAndKey {
    pub(crate) der: Vec<u8>,
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// A directory whose files are all replaced at once: each is a link into `..data`, which is a link
/// to a directory.
pub(crate) struct SecretMount {
    dir: TempDir,
    versions: Cell<u32>,
}

impl TestCa {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Signs a certificate with these names: DNS names and IP addresses, or URIs.
    pub(crate) fn sign(&self, names: &[&str]) -> CertAndKey {
        let (uris, others): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.contains("://"));
        let mut params = CertificateParams::new(others.into_iter().map(str::to_owned).collect::<Vec<_>>()).unwrap();
        params.subject_alt_names.extend(uris.into_iter().map(|uri| SanType::URI(uri.try_into().unwrap())));
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        CertAndKey { der: cert.der().to_vec(), cert: cert.pem(), key: key.serialize_pem() }
    }

    /// Signs a certificate for a server on this machine.
    pub(crate) fn server(&self) -> CertAndKey {
        self.sign(&["localhost", "127.0.0.1"])
    }
}

impl SecretMount {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let mount = Self { dir: TempDir::new().unwrap(), versions: Cell::new(0) };
        for (name, _) in files {
            symlink(Path::new("..data").join(name), mount.path(name)).unwrap();
        }
        mount.replace(files);
        mount
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Replaces all files atomically: no reader sees a mix of old and new files.
    pub(crate) fn replace(&self, files: &[(&str, &str)]) {
        let version = self.versions.get() + 1;
        self.versions.set(version);
        let data = self.dir.path().join(format!("..{version}"));
        fs::create_dir(&data).unwrap();
        for (name, text) in files {
            fs::write(data.join(name), text).unwrap();
        }
        symlink(&data, self.dir.path().join("..next")).unwrap();
        fs::rename(self.dir.path().join("..next"), self.dir.path().join("..data")).unwrap();
    }
}
