# Downloads a file with Net::FTP through a firewall of one of its types:
#   firewall.pl FIREWALL TYPE HOST USER PASSWORD REMOTE LOCAL [TLS CA [NAME]]
# TLS is "starttls" or "implicit". CA is the file of the only authority that is trusted. NAME is what the certificate has to be for,
# if not what Net::FTP takes by itself: HOST.
use strict;
use warnings;
use Net::FTP;

my ($firewall, $type, $host, $user, $password, $remote, $local, $tls, $ca, $name) = @ARGV;

my %options = (Timeout => 60, Debug => 1, Passive => 1);
if ($type) {
	%options = (%options, Firewall => $firewall, FirewallType => $type);
}
else {
	($host, $options{Port}) = split /:/, $host;
}
if ($tls) {
	require IO::Socket::SSL;
	%options = (%options, SSL => $tls eq "implicit", SSL_ca_file => $ca,
		SSL_verify_mode => IO::Socket::SSL::SSL_VERIFY_PEER());
	$options{SSL_verifycn_name} = $name if $name;
}
my $ftp = Net::FTP->new($host, %options) or die "connect: $@";
# TLS comes before all types' logins: login says what the firewall and the server want in one go.
$ftp->starttls or die "starttls: $IO::Socket::SSL::SSL_ERROR" if $tls && $tls eq "starttls";
$ftp->login($user, $password) or die "login: " . $ftp->code . " " . $ftp->message;
$ftp->binary or die "binary: " . $ftp->message;
$ftp->get($remote, $local) or die "get: " . $ftp->code . " " . $ftp->message;
$ftp->quit;
