# Works through a job with Net::FTP:
#   client.pl HOST PORT USER PASSWORD VERB DIRECTORY [explicit|implicit P|C MAX CA] <STEPS
use strict;
use warnings;
use Net::FTP;

my ($host, $port, $user, $password, $verb, $directory, $tls, $protection, $max, $ca) = @ARGV;

# Net::FTP picks the verb by the family alone; here it can be told.
package Client {
	our @ISA = ('Net::FTP');
	sub pasv { my $ftp = shift; $verb eq 'EPSV' ? $ftp->epsv : $ftp->SUPER::pasv }
	sub port { my $ftp = shift; $verb eq 'EPRT' ? $ftp->eprt : $ftp->SUPER::port }
}

my %options = (Port => $port, Timeout => 60, Debug => 1, Passive => $verb =~ /PASV|EPSV/ ? 1 : 0);
if ($tls) {
	$options{SSL} = $tls eq 'implicit';
	$options{SSL_ca_file} = $ca;
	$options{SSL_version} = 'SSLv23:!TLSv1_3' if $max eq '1.2';
}
my $ftp = Client->new($host, %options) or die "connect: $@";

sub check { my ($ok, @what) = @_; $ok or die "@what: " . $ftp->code . " " . $ftp->message }

sub lines {
	my ($local, @lines) = @_;
	open my $file, '>', $local or die "$local: $!";
	print $file map {"$_\n"} @lines;
	close $file or die "$local: $!";
}

# local_file opens a file for Net::FTP to read from some position on.
sub local_file {
	my ($local, $position) = @_;
	open my $file, '<:raw', $local or die "$local: $!";
	seek $file, $position, 0 or die "$local: $!";
	return $file;
}

my %step = (
	get => sub { my ($remote, $local) = @_; $ftp->get($remote, $local) },
	reget => sub { my ($remote, $local) = @_; $ftp->get($remote, $local, -s $local) },
	put => sub { my ($remote, $local) = @_; $ftp->put($local, $remote) },
	reput => \&resume_upload,
	append => sub { my ($remote, $local) = @_; $ftp->append($local, $remote) },
	rename => sub { my ($remote, $local, $to) = @_; $ftp->rename($remote, $to) },
	delete => sub { $ftp->delete($_[0]) },
	mkdir => sub { $ftp->mkdir($_[0]) },
	rmdir => sub { $ftp->rmdir($_[0]) },
	list => sub { my ($remote, $local) = @_; lines($local, $ftp->dir) },
	nlst => sub { my ($remote, $local) = @_; lines($local, $ftp->ls) },
	abort => \&abort,
);

sub resume_upload {
	my ($remote, $local) = @_;
	my $size = $ftp->size($remote);
	$ftp->restart($size);
	return $ftp->put(local_file($local, $size), $remote);
}

# abort interrupts a download in the middle, and reads replies until it knows which one is the last.
sub abort {
	my ($remote) = @_;
	my $data = $ftp->retr($remote) or return;
	my $got = 0;
	while ($got < 100000) { $got += $data->read(my $buffer, 10000) or return }
	$ftp->abort;
	$ftp->command('NOOP');
	do { $ftp->response } until $ftp->code == 200 or $ftp->code == 421 or $ftp->code == 0;
	return $ftp->code == 200;
}

if ($tls) {
	check($tls eq 'implicit' || $ftp->starttls, 'starttls');
	check($ftp->prot($protection), 'prot');
}
check($ftp->login($user, $password), 'login');
check($ftp->cwd($directory), 'cwd');
check($ftp->binary, 'binary');
while (my $line = <STDIN>) {
	chomp $line;
	my ($op, @names) = split / /, $line, -1;
	s/%(..)/chr hex $1/ge for @names;
	my $do = $step{$op} or die "Net::FTP cannot $op";
	check($do->(@names), $line);
}
$ftp->quit;
