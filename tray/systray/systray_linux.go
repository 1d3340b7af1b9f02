package systray

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"fyne.io/systray"
	"github.com/godbus/dbus/v5"

	"backstay/tray"
	"backstay/tray/icons"
)

// escape makes an underscore an underscore: alone it marks the key of an entry.
func escape(label string) string { return strings.ReplaceAll(label, "_", "__") }

// setIcon sets the icon from a PNG. The toolkit hands on colours multiplied by their
// opacity, which tray hosts do not expect: edges would be too dark. A format of our
// own gives it colours that stay as they are.
func setIcon(data []byte) { systray.SetIcon(append([]byte(straight), data...)) }

const straight = "straight\n"

func init() {
	decode := func(r io.Reader) (image.Image, error) {
		if _, err := io.ReadFull(r, make([]byte, len(straight))); err != nil {
			return nil, err
		}
		img, err := unmultiplied(r)
		if err != nil {
			return nil, err
		}
		return &image.RGBA{Pix: img.Pix, Stride: img.Stride, Rect: img.Rect}, nil
	}
	image.RegisterFormat("straight", straight, decode, func(r io.Reader) (image.Config, error) {
		img, err := decode(r)
		if err != nil {
			return image.Config{}, err
		}
		return image.Config{ColorModel: color.RGBAModel, Width: img.Bounds().Dx(), Height: img.Bounds().Dy()}, nil
	})
}

func unmultiplied(r io.Reader) (*image.NRGBA, error) {
	img, err := png.Decode(r)
	if err != nil {
		return nil, err
	}
	out := image.NewNRGBA(image.Rect(0, 0, img.Bounds().Dx(), img.Bounds().Dy()))
	draw.Draw(out, out.Rect, img, img.Bounds().Min, draw.Src)
	return out, nil
}

// session connects to the session's bus, if there is one: the library would start a
// bus of its own, which nobody else is on and nobody ends. The caller closes it.
func session(ctx context.Context) (*dbus.Conn, error) {
	if os.Getenv("DBUS_SESSION_BUS_ADDRESS") == "" {
		if _, err := os.Stat(filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "bus")); err != nil || os.Getenv("XDG_RUNTIME_DIR") == "" {
			return nil, fmt.Errorf("%w: no D-Bus session bus", ErrNoSession)
		}
	}
	conn, err := dbus.ConnectSessionBus(dbus.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoSession, err)
	}
	return conn, nil
}

// Host says whether there is something that shows tray icons: nil, [ErrNoHost] or
// [ErrNoSession].
func Host(ctx context.Context) error {
	conn, err := session(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	var has bool
	if err := conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.NameHasOwner", 0, "org.kde.StatusNotifierWatcher").Store(&has); err != nil {
		return fmt.Errorf("%w: %w", ErrNoSession, err)
	}
	if !has {
		return ErrNoHost
	}
	return nil
}

// shown is the notification that the next one replaces.
var shown atomic.Uint32

// Notify shows a notification in the place of the one before.
func Notify(ctx context.Context, n tray.Notice) error {
	conn, err := session(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	urgency := byte(1)
	if n.Urgent {
		urgency = 2
	}
	hints := map[string]dbus.Variant{"urgency": dbus.MakeVariant(urgency), "desktop-entry": dbus.MakeVariant("backstay")}
	if img, err := unmultiplied(bytes.NewReader(icons.Of(n.Icon))); err == nil {
		hints["image-data"] = dbus.MakeVariant(struct {
			Width, Height, Stride int32
			Alpha                 bool
			Bits, Channels        int32
			Data                  []byte
		}{int32(img.Rect.Dx()), int32(img.Rect.Dy()), int32(img.Stride), true, 8, 4, img.Pix})
	}
	// The body is markup.
	text := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(n.Text)
	var id uint32
	err = conn.Object("org.freedesktop.Notifications", "/org/freedesktop/Notifications").CallWithContext(ctx,
		"org.freedesktop.Notifications.Notify", 0, "Backstay", shown.Load(), "", n.Title, text, []string{}, hints, int32(-1)).Store(&id)
	if err != nil {
		return fmt.Errorf("show a notification: %w", err)
	}
	shown.Store(id)
	return nil
}
