package dashboard

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"strings"

	"backstay/agent/config"
	"backstay/agent/enrol"
	"backstay/agent/exclude"
	"backstay/agent/scan"
	"backstay/agent/scan/facts"
)

// foldersView is what is protected, and what of it is left out.
type foldersView struct {
	Folders  []place  `json:"folders"`
	Excludes []string `json:"excludes"`
	// File is where both are written down.
	File string `json:"file"`
}

func (d *dashboard) folders(*http.Request) (foldersView, error) {
	v := foldersView{Folders: []place{}, Excludes: []string{}, File: filepath.Join(d.o.Folder, config.TransferFile)}
	c, err := config.Load(d.o.Folder)
	if err != nil {
		return v, err
	}
	for _, root := range c.Roots {
		v.Folders = append(v.Folders, placeOf(root))
	}
	v.Excludes = append(v.Excludes, c.Excludes...)
	return v, nil
}

type named struct {
	Path ref `json:"path"`
}

func (d *dashboard) addFolder(_ context.Context, in named) (struct{}, error) {
	path, err := existing(string(in.Path))
	if err == nil {
		err = enrol.AddFolders(d.o.Folder, []string{path})
	}
	return struct{}{}, err
}

func (d *dashboard) removeFolder(_ context.Context, in named) (struct{}, error) {
	return struct{}{}, enrol.RemoveFolders(d.o.Folder, []string{string(in.Path)})
}

type rule struct {
	Pattern string `json:"pattern"`
}

func (d *dashboard) addExclude(_ context.Context, in rule) (struct{}, error) {
	err := enrol.AddExclude(d.o.Folder, in.Pattern)
	if p, ok := errors.AsType[*exclude.PatternError](err); ok {
		err = fault{http.StatusBadRequest, p}
	}
	return struct{}{}, err
}

func (d *dashboard) removeExclude(_ context.Context, in rule) (struct{}, error) {
	return struct{}{}, enrol.RemoveExclude(d.o.Folder, in.Pattern)
}

// effect is what a change of the exclude patterns would do, so far.
type effect struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
	// Paths are the first of it, a folder for all that is in it.
	Paths []string `json:"paths"`
	Done  bool     `json:"done"`
}

// previewExclude says, as it goes, what a new pattern would leave out of what is
// protected now, or with remove=1 what would be protected without it.
func (d *dashboard) previewExclude(w http.ResponseWriter, r *http.Request) {
	c, err := config.Load(d.o.Folder)
	if err != nil {
		d.respond(w, r, nil, err)
		return
	}
	pattern := r.URL.Query().Get("pattern")
	// Of the two sets of patterns strict leaves out more.
	loose, strict := c.Excludes, append(append([]string{}, c.Excludes...), pattern)
	if r.URL.Query().Get("remove") != "" {
		loose, strict = nil, c.Excludes
		for _, p := range c.Excludes {
			if p != pattern {
				loose = append(loose, p)
			}
		}
	}
	keep, err := exclude.Compile(loose)
	var drop *exclude.Rules
	if err == nil {
		drop, err = exclude.Compile(strict)
	}
	if err != nil {
		d.respond(w, r, nil, fault{http.StatusBadRequest, err})
		return
	}
	out := newStream(w)
	e := effect{Paths: []string{}}
	for _, root := range c.Roots {
		// A scan yields a folder before what is in it, or not: both are looked at.
		_, err := scan.Root(r.Context(), root, scan.Options{
			Exclude: keep.Entry(),
			Found: func(entries []scan.Entry) error {
				for _, entry := range entries {
					dir := entry.Facts.Type == facts.Directory
					if !drop.Match(root, entry.Path, dir) {
						continue
					}
					if entry.Facts.Type == facts.Regular {
						e.Files++
						e.Bytes += entry.Facts.Size
					}
					if len(e.Paths) < maxShown && !drop.Match(root, filepath.Dir(entry.Path), true) {
						text := placeOf(entry.Path).Path
						if dir {
							text = strings.TrimSuffix(text, string(filepath.Separator)) + string(filepath.Separator)
						}
						e.Paths = append(e.Paths, text)
					}
				}
				return out.tell(e, false)
			},
		})
		if r.Context().Err() != nil {
			return
		}
		// What cannot be read has no effect that could be shown.
		if _, ok := errors.AsType[*facts.Problem](err); err != nil && !ok {
			return
		}
	}
	e.Done = true
	_ = out.tell(e, true)
}
