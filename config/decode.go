package config

import (
	"encoding"
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"time"
)

// isScalar reports whether a value of the type is one text, not a mapping or a list.
func isScalar(t reflect.Type) bool {
	return t.Kind() != reflect.Struct && t.Kind() != reflect.Slice ||
		reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

func isScalarList(t reflect.Type) bool { return t.Kind() == reflect.Slice && isScalar(t.Elem()) }

func isMapping(t reflect.Type) bool { return t.Kind() == reflect.Struct && !isScalar(t) }

// names are the keys of a struct type, in the order of its fields.
func names(t reflect.Type) []string {
	s := make([]string, t.NumField())
	for i := range s {
		s[i] = t.Field(i).Tag.Get("yaml")
	}
	return s
}

// walk calls visit for every key below a struct type, parents first. Elements of a list are written as key[].
func walk(t reflect.Type, key string, visit func(key string, t reflect.Type)) {
	for i, name := range names(t) {
		path, field := join(key, name), t.Field(i).Type
		visit(path, field)
		switch {
		case isMapping(field):
			walk(field, path, visit)
		case field.Kind() == reflect.Slice && isMapping(field.Elem()):
			walk(field.Elem(), path+"[]", visit)
		}
	}
}

// allKeys are the keys of a Config, such as log.level and listeners[].mode, in the order of its fields.
func allKeys() []string {
	var keys []string
	walk(reflect.TypeFor[Config](), "", func(key string, _ reflect.Type) { keys = append(keys, key) })
	return keys
}

// scalar is a key that one text can set, so that the environment and flags may: one that is in no list.
type scalar struct {
	key   string
	value any // the default; its type is the key's
}

// scalars are the scalar keys of a Config.
func scalars() []scalar { return scalarsOf(reflect.ValueOf(Default()).Elem(), "") }

func scalarsOf(v reflect.Value, key string) []scalar {
	var all []scalar
	for i, name := range names(v.Type()) {
		field := v.Field(i)
		switch {
		case isScalar(field.Type()):
			all = append(all, scalar{join(key, name), field.Interface()})
		case isMapping(field.Type()):
			all = append(all, scalarsOf(field, join(key, name))...)
		}
	}
	return all
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

// element is the key of a list's element.
func element(key string, i int) string { return key + "[" + strconv.Itoa(i) + "]" }

// parse turns a scalar's text into a value of exactly the type. It is the inverse of format.
func parse(text string, t reflect.Type) (any, error) {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return parseDuration(text)
	case reflect.TypeFor[netip.AddrPort]():
		return parseAddrPort(text)
	case reflect.TypeFor[netip.Prefix]():
		return parsePrefix(text)
	}
	v := reflect.New(t)
	if u, ok := v.Interface().(encoding.TextUnmarshaler); ok {
		err := u.UnmarshalText([]byte(text))
		return v.Elem().Interface(), err
	}
	switch t.Kind() {
	case reflect.String:
		v.Elem().SetString(text)
	case reflect.Int:
		n, err := parseWhole(text, 31) // an int of every machine
		if err != nil {
			return nil, err
		}
		v.Elem().SetInt(int64(n))
	case reflect.Uint32:
		n, err := parseWhole(text, 32)
		if err != nil {
			return nil, err
		}
		v.Elem().SetUint(n)
	case reflect.Bool:
		if text != "true" && text != "false" {
			return nil, fmt.Errorf("%s is neither true nor false", quoted(text))
		}
		v.Elem().SetBool(text == "true")
	default:
		return nil, fmt.Errorf("no text is known for the type %s", t)
	}
	return v.Elem().Interface(), nil
}

// format is a scalar's text.
func format(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return formatDuration(x)
	case netip.AddrPort:
		if !x.IsValid() {
			return ""
		}
		return x.String()
	case fmt.Stringer:
		return x.String()
	}
	switch v.Kind() {
	case reflect.Int:
		return strconv.FormatInt(v.Int(), 10)
	case reflect.Uint32:
		return strconv.FormatUint(v.Uint(), 10)
	case reflect.Bool:
		return strconv.FormatBool(v.Bool())
	}
	return v.String()
}
