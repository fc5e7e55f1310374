"""Names of files that hold secrets. They are part of no package, and no upload has them."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

# Patterns of names, without folders.
SECRET_FILES = (
    *(".env", ".env.*", "*.env", ".envrc", ".netrc", "_netrc", ".pgpass", ".pypirc", ".npmrc", ".htpasswd"),
    *("*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keytab", "*.kdbx", "*.ppk", "*.gpg", "*.asc"),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "auth_token", ".git-credentials"),
    *("credentials", "credentials.*", "*credentials.json", "client_secret*.json", "service[-_]account*.json"),
    *("secrets.*", ".secrets", ".aws", ".azure", ".docker", ".gcloud", ".gnupg", ".kube", ".ssh"),
)


def is_secret_file(name: str) -> bool:
    """Whether a file or folder in a package is taken for a secret by its name. A Python module never is: it is code."""
    return not name.endswith(".py") and any(fnmatchcase(name.lower(), pattern) for pattern in SECRET_FILES)


def secret_files(package: Path) -> list[Path]:
    """What in a package is taken for a secret, for messages."""
    return sorted(path for path in package.rglob("*") if is_secret_file(path.name))
