package facts

import (
	"io/fs"

	"golang.org/x/sys/windows"
)

var explanations = []explanation{
	{windows.ERROR_SHARING_VIOLATION, "another program has opened it for itself alone", fixInUse},
	{windows.ERROR_LOCK_VIOLATION, "another program has locked a part of it", fixInUse},
	{fs.ErrPermission, "permission denied", fixPermission},
	{windows.ERROR_CRC, "the disk failed to read it", fixDamaged},
	{windows.ERROR_FILE_CORRUPT, "the file system is damaged here", fixDamaged},
	{windows.ERROR_DISK_CORRUPT, "the file system is damaged here", fixDamaged},
	{windows.ERROR_NETNAME_DELETED, "its network drive is not connected", fixNetwork},
	{windows.ERROR_BAD_NETPATH, "its network drive does not answer", fixNetwork},
	{windows.ERROR_CLOUD_FILE_PROVIDER_NOT_RUNNING, "it lies in the cloud only and its provider is not running", "start the provider, or keep the file on this device"},
	{windows.ERROR_CLOUD_FILE_NETWORK_UNAVAILABLE, "it lies in the cloud only and there is no network", "connect to the network; it is tried again by itself"},
	{windows.ERROR_FILENAME_EXCED_RANGE, "the path is longer than the system can open", "move it to a shorter path"},
}
